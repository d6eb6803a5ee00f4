"""What the agents send, made beforehand, and the program that sends it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lookups import rows

from support.replica import map_register
from support.sources import address, prefix

SOURCES = Path(__file__).parent
PORT = 51820  # of every locator
FIRST_NONCE = 1  # an agent that repeats its register repeats it to the byte


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back of one kind of datagram."""

    sent: int
    answered: int  # within what counts as an answer
    late: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the program gave."""

    seconds: float
    sent_late_ms: float  # the most by which a datagram was sent late
    cpu_s: float  # of the program
    register: Answers
    lookup: Answers

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what the program prints."""
        fields: dict[str, Any] = json.loads(text)
        register, lookup = (Answers(**fields.pop(kind)) for kind in ("register", "lookup"))
        return cls(**fields, register=register, lookup=lookup)


@dataclass(frozen=True, slots=True)
class Agents:
    """So many agents of a server."""

    program: Path
    server: tuple[str, int]
    registers: Path
    size: int  # bytes of each register

    @classmethod
    def made(cls, folder: Path, server: tuple[str, int], count: int) -> Self:
        """Encode the registers of so many agents into a file of the folder."""
        registers = folder / "registers"
        size = len(_register(0))
        with registers.open("wb") as file:
            for number in range(count):
                data = _register(number)
                assert len(data) == size
                file.write(data)
        return cls(folder / "fleet", server, registers, size)

    def first(self, window: int) -> Run:
        """Have every agent register for the first time, so many at a time."""
        return self._run("first", window)

    def keep(self, seconds: float, registers: float, lookups: float) -> Run:
        """Have the agents repeat themselves, so many registers and lookups a second."""
        template, eid_at = rows.template()
        return self._run("keep", seconds, registers, lookups, template.hex(), eid_at)

    def move(self, seconds: float, registers: float, nonce: int) -> Run:
        """Have the agents move in turns, so many a second: each register is a change.

        ``nonce`` is greater than any before, and tells the new port.
        """
        port_at = _register(0).index(PORT.to_bytes(2))
        return self._run("move", seconds, registers, nonce, port_at)

    def _run(self, *arguments: object) -> Run:
        host, port = self.server
        command = [self.program, host, port, self.registers, self.size, *arguments]
        done = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True
        )
        return Run.read(done.stdout)


def _register(number: int) -> bytes:
    return map_register(FIRST_NONCE, prefix(number), at=address(number))
