"""Parts of the load that are processes of their own, raised over others: they work by the clock.

A part is given a plan (one JSON line), prints what the run has to know (one JSON line), may be told
more (a JSON line each time), and ends at the end of its input.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

from wgmap_chaos import priority
from wgmap_chaos.lab.errors import LabError

START_S, END_S = 30.0, 30.0


class Part:
    """Such a process, as a run sees it."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        """Use ``start``."""
        self._module, self._process = module, process

    @classmethod
    async def start(cls, module: str, plan: object) -> tuple["Part", Any]:
        """Start it; return it and what it printed. Raises LabError."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module), stdin=pipe, stdout=pipe,
            start_new_session=True,  # what is raised is the whole session, if the kernel so groups
        )  # fmt: skip
        part = cls(module, process)
        part.say(plan)
        assert process.stdout is not None, "a pipe"
        with suppress(TimeoutError, ValueError):
            async with asyncio.timeout(START_S):
                return part, json.loads(await process.stdout.readline())
        with suppress(LabError):
            await part.end()
        raise LabError(f"{module} does not start")

    def say(self, what: object) -> None:
        """Tell it something."""
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def end(self) -> None:
        """End it; whatever it writes is complete then. Raises LabError."""
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.close()
        try:
            code = await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        if code:
            raise LabError(f"{self._module} ended with {code}")


# ------------------------------------------------------------------------------- in the process


def begin() -> Any:
    """Raise this process and return its plan; nothing follows it before ``answer``."""
    priority.favour([os.getpid()])
    return json.loads(sys.stdin.readline())


def answer(what: object) -> None:
    """Print what the run has to know."""
    print(json.dumps(what), flush=True)


async def told() -> asyncio.StreamReader:
    """Return what the run tells from now on, line by line."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
