"""A program whose standard error is a terminal (a pty), and its standard output a pipe."""

import asyncio
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

DEADLINE_S = 20.0 * float(os.environ.get("WGMAP_TIME_SCALE", "1"))
CLEAR = "\r\033[K"
PROGRAMS = Path(sys.executable).parent


class Terminal:
    """What the program drew there so far, and how it ends."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self._process = process
        self._master = master
        self._changed = asyncio.Event()
        self.text = ""

    def read(self) -> None:
        """Take in what was drawn; called when there is something."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data.decode()
        self._changed.set()

    async def shows(self, text: str) -> None:
        """Wait until something was drawn; TimeoutError after the deadline."""
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.text:
                self._changed.clear()
                await self._changed.wait()

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    async def ends(self) -> tuple[int, str]:
        """Wait for the end; returns the exit code and the standard output."""
        async with asyncio.timeout(DEADLINE_S):
            out, _ = await self._process.communicate()
        self.read_rest()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode()

    def read_rest(self) -> None:
        """Take in what was drawn last."""
        os.set_blocking(self._master, False)
        while True:
            before = self.text
            self.read()
            if self.text == before:
                return

    @property
    def left(self) -> str:
        """What stands on the last line at the end."""
        return self.text.rpartition(CLEAR)[2]


@asynccontextmanager
async def terminal(
    program: str, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Run a program of the product; it is ended in any case."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    try:
        # Whoever runs the tests in the background may have them ignore Ctrl-C, which is inherited.
        process = await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT", PROGRAMS / program),
            *arguments,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=slave,
        )
        shown = Terminal(process, master)
        asyncio.get_running_loop().add_reader(master, shown.read)
        try:
            yield shown
        finally:
            asyncio.get_running_loop().remove_reader(master)
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(slave)
        os.close(master)
