"""A shell on a host of a lab, in which paths are those of a real machine.

It has a mount namespace of its own, in which ``/etc``, ``/var/lib``, ``/var/backups`` and ``/run``
may be written without the machine noticing. What one command leaves behind (variables, files, jobs)
the next one finds, as at a terminal.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60.0 * float(os.environ.get("WGMAP_TIME_SCALE", "1"))
PROGRAMS = Path(sys.executable).parent
# sudo is not everywhere, and who runs the tests is root already.
_BEGIN = """
set +m
sudo() {{ "$@"; }}
cd {folder}
"""
# Overlays, for what is there must be there; /run is made of what is there, for sockets.
_OWN_FILES = """
mount -t tmpfs tmpfs /mnt
for folder in /etc /var/lib /var/backups; do
  mkdir -p /mnt/upper/$folder /mnt/work/$folder
  mount -t overlay overlay \
    -o lowerdir=$folder,upperdir=/mnt/upper/$folder,workdir=/mnt/work/$folder $folder || exit
done
mkdir /mnt/run
mount --rbind /run /mnt/run
mount -t tmpfs tmpfs /run
ln -s /mnt/run/* /run/
"""


class Shell:
    """One bash, asked a command at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._count = 0

    def run(self, command: str, deadline_s: float = DEADLINE_S) -> tuple[int, str]:
        """Return exit code and all that was printed; AssertionError after the deadline."""
        assert self._process.stdin is not None
        self._count += 1
        mark = f"--- end {self._count} "
        self._process.stdin.write(f"{command}\nENDED=$?; echo; echo '{mark}'$ENDED\n".encode())
        self._process.stdin.flush()
        printed = self._until(re.compile(re.escape(mark) + r"(\d+)\n"), deadline_s, command)
        text, _, code = printed.rpartition(mark)
        return int(code), text.strip()

    def run_and_end(self, command: str, shows: str) -> None:
        """Run what goes on by itself until it has printed that; AssertionError if it does not."""
        code, text = self.run(
            f"{command} > printed 2>&1 & GOES_ON=$!\n"
            f"until grep -q '{shows}' printed || ! kill -0 $GOES_ON; do sleep 0.1; done\n"
            f"grep -q '{shows}' printed; FOUND=$?; kill $GOES_ON; wait $GOES_ON; (exit $FOUND)"
        )
        assert code == 0, f"{command}: never printed {shows}\n{text}"

    def _until(self, end: re.Pattern[str], deadline_s: float, command: str) -> str:
        output = self._process.stdout
        assert output is not None
        until, text = time.monotonic() + deadline_s, ""
        while not end.search(text):
            left = until - time.monotonic()
            ready = select.select([output], [], [], max(0.0, left))[0]
            assert ready, f"no end in {deadline_s} s: {command}\n{text}"
            piece = os.read(output.fileno(), 65536)
            assert piece, f"the shell ended: {command}\n{text}"
            text += piece.decode(errors="replace")
        return text


@contextmanager
def shell(folder: Path, netns: str | None = None) -> Iterator[Shell]:
    """Open a shell: on a host of a lab, with files of its own; without one on this machine.

    All that runs in it ends with it.
    """
    host = ("ip", "netns", "exec", netns, "unshare", "--mount") if netns else ()
    process = subprocess.Popen(
        (*host, "bash", "--noprofile", "--norc"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "WG_COLOR_MODE": "never"},
        start_new_session=True,
    )
    try:
        made = Shell(process)
        begin = _BEGIN.format(folder=folder)
        code, text = made.run(f"{_OWN_FILES if netns else ''}{begin}")
        assert code == 0, text
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
