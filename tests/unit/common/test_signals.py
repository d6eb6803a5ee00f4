"""A daemon that is asked to end more than once ends once, with its own code and without a word."""

import subprocess
import sys
from textwrap import dedent

import pytest

PROGRAM = """
    import asyncio, os, signal, subprocess, sys
    from wgmap.signals import ending

    class Loop(asyncio.SelectorEventLoop):
        def _close_self_pipe(self):
            super()._close_self_pipe()
            if "closing" in sys.argv:
                os.kill(os.getpid(), signal.SIGTERM)  # when asyncio's own handlers are still there

    async def main():
        stop = asyncio.Event()
        with ending(stop.set):
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            await stop.wait()
            if "cleaning" in sys.argv:
                stop.clear()
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.01)
                assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    os.kill(os.getpid(), signal.SIGTERM)
    started = subprocess.run(["sh", "-c", "kill -TERM $$"])
    assert started.returncode == -signal.SIGTERM, "what it starts ignores the signal as well"
    sys.exit(7)
"""


@pytest.mark.parametrize("again", ["", "cleaning", "closing"])
@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_the_first_signal_ends_it_and_no_other_disturbs(first: str, again: str) -> None:
    command = [sys.executable, "-c", dedent(PROGRAM), first, again]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_asyncio_alone_complains_when_a_signal_finds_its_pipe_closed() -> None:
    """What ``ending`` is for; once asyncio takes its handlers away first, it can be simpler."""
    program = dedent(PROGRAM).replace(
        "from wgmap.signals import ending",
        "from contextlib import contextmanager\n"
        "@contextmanager\n"
        "def ending(stop):\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)\n"
        "    yield\n",
    )
    program = program.replace("os.kill(os.getpid(), signal.SIGINT)", "pass")
    command = [sys.executable, "-c", program, "SIGTERM", "closing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "signal wakeup fd" in done.stderr
