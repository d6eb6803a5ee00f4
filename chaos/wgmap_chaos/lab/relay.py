"""A wire with delay and loss, in user space: frames go from one interface out of another.

``python -m wgmap_chaos.lab.relay --control SOCKET [--delay MS] [--loss PERCENT] FROM:TO ...``
runs in the namespace of the interfaces. Each pair is one direction; a wire for both directions
between two interfaces is ``A:B B:A``. All pairs share one delay and one loss; beside them there
may be detours, which make the frames from one interface to one address later. ``RelayControl``
reads and changes all of it while it runs.

Offloads of the senders must be off: a frame read here is complete, with its checksum, or it is
not sent on. A pair holds at most QUEUE_FRAMES; when it is full the newest frame is dropped and
counted. Changing the delay applies to frames that arrive from then on, so frames can overtake
each other when it shrinks, as they do when a route changes.
"""

import argparse
import ctypes
import gc
import heapq
import json
import os
import random
import re
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wgmap.errors import WgmapError

QUEUE_FRAMES = 8192  # for each pair: 80 Mbit/s of full frames at 1 s of delay
MAX_DELAY_MS = 10_000.0
_RECEIVE_BYTES = 4 << 20
_FRAME_BYTES = 1 << 16
_BATCH = 64  # frames read from one interface before the others have their turn
_MESSAGE_BYTES = 1 << 17  # all detours fit
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
_PR_SET_TIMERSLACK = 29
# A sleeper wakes 50 to 200 us late: the relay sleeps until so much before a frame is due, and looks
# at the clock from then on. Nothing leaves early.
_WAKE_S = 100e-6
_STOP = {"stop": True}
_ANCILLARY_BYTES = 64
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_MAC_BYTES = 6
MAX_DETOURS = 1000
_NICE = -15  # a relay that waits for the processor is a delay that nobody asked for


class RelayError(WgmapError):
    """The relay is not there, or refuses what it was asked."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What a wire does to each frame."""

    delay_ms: float = 0.0  # one way
    loss_percent: float = 0.0
    duplicate_percent: float = 0.0  # so many come twice
    jitter_ms: float = 0.0  # up to so much later, each by chance: they overtake each other

    def __post_init__(self) -> None:
        for name, value in (("delay", self.delay_ms), ("jitter", self.jitter_ms)):
            if not 0 <= value <= MAX_DELAY_MS:
                raise RelayError(f"{name} must be 0 to {MAX_DELAY_MS:.0f} ms, not {value}")
        for name, value in (("loss", self.loss_percent), ("duplicate", self.duplicate_percent)):
            if not 0 <= value <= 100:
                raise RelayError(f"{name} must be 0 to 100 percent, not {value}")

    @property
    def perfect(self) -> bool:
        """Whether frames pass unharmed, once and at once."""
        return self == Quality()


@dataclass(frozen=True, slots=True)
class Detour:
    """Frames from one interface to one address take longer."""

    source: str  # the interface that they are read from
    destination: str  # MAC address, aa:bb:cc:dd:ee:ff
    extra_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.extra_ms <= MAX_DELAY_MS:
            raise RelayError(f"a detour takes 0 to {MAX_DELAY_MS:.0f} ms, not {self.extra_ms}")
        if not _MAC.fullmatch(self.destination):
            raise RelayError(f"{self.destination!r} is no MAC address")

    @property
    def mac(self) -> bytes:
        """The destination as it stands in a frame."""
        return bytes.fromhex(self.destination.replace(":", ""))


@dataclass(slots=True)
class Counters:
    """Frames since the start."""

    forwarded: int = 0
    lost: int = 0  # on purpose
    duplicated: int = 0  # on purpose
    overtaken: int = 0  # by a frame of the same pair that came later
    overflowed: int = 0  # the queue was full
    refused: int = 0  # the interface did not take it (down, too long, no room)


class _Waiting(NamedTuple):
    due: float
    order: int
    pair: int
    frame: bytes


class Wire:
    """The frames that are under way; it decides, and is told the time."""

    def __init__(self, quality: Quality, pairs: int, chance: random.Random) -> None:
        """Start empty; ``chance`` decides which frames are lost."""
        self.quality = quality
        self.counters = Counters()
        self.extra_ms: dict[tuple[int, bytes], float] = {}  # by pair and destination
        self._chance = chance
        self._queued = [0] * pairs
        self._newest = [0] * pairs  # order of the newest frame that left
        self._heap: list[_Waiting] = []
        self._order = 0

    def __len__(self) -> int:
        """Frames under way."""
        return len(self._heap)

    def accept(self, now: float, pair: int, frame: bytes) -> None:
        """Take in a frame that came at ``now`` (seconds)."""
        loss = self.quality.loss_percent
        if loss and self._chance.random() * 100 < loss:
            self.counters.lost += 1
        elif self._queued[pair] >= QUEUE_FRAMES:
            self.counters.overflowed += 1
        else:
            self._push(now, pair, frame)
            twice = self.quality.duplicate_percent
            room = self._queued[pair] < QUEUE_FRAMES
            if twice and room and self._chance.random() * 100 < twice:
                self.counters.duplicated += 1
                self._push(now, pair, frame)

    def _push(self, now: float, pair: int, frame: bytes) -> None:
        self._queued[pair] += 1
        self._order += 1
        extra_ms = self.extra_ms.get((pair, frame[:_MAC_BYTES]), 0.0)
        if jitter_ms := self.quality.jitter_ms:
            extra_ms += self._chance.random() * jitter_ms
        due = now + (self.quality.delay_ms + extra_ms) / 1000
        heapq.heappush(self._heap, _Waiting(due, self._order, pair, frame))

    def due(self, now: float) -> Iterator[tuple[int, bytes]]:
        """Take out the frames whose time has come, oldest first."""
        while self._heap and self._heap[0].due <= now:
            waiting = heapq.heappop(self._heap)
            self._queued[waiting.pair] -= 1
            self.counters.overtaken += waiting.order < self._newest[waiting.pair]
            self._newest[waiting.pair] = max(waiting.order, self._newest[waiting.pair])
            yield waiting.pair, waiting.frame

    def next_due(self) -> float | None:
        """Return when the next frame is due; None when there is none."""
        return self._heap[0].due if self._heap else None


class Relay:
    """Packet sockets and the control socket around a Wire."""

    def __init__(self, pairs: list[tuple[str, str]], control: Path, quality: Quality) -> None:
        """Open everything; raises RelayError. Who can connect to ``control`` finds it ready."""
        chance = random.Random()  # noqa: S311  # losses, not secrets
        self.wire = Wire(quality, len(pairs), chance)
        self._numbers = {source: number for number, (source, _) in enumerate(pairs)}
        self._detours: tuple[Detour, ...] = ()
        self._poll = select.epoll()
        self._outputs = [_output(target) for _, target in pairs]
        self._inputs: dict[int, tuple[int, socket.socket]] = {}
        for number, (source, _) in enumerate(pairs):
            opened = _input(source)
            self._inputs[opened.fileno()] = (number, opened)
            self._poll.register(opened, select.EPOLLIN)
        self._control = _listen(control)
        self._poll.register(self._control, select.EPOLLIN)
        self._stopping = False

    def run(self) -> None:
        """Forward until somebody asks for the end."""
        while not self._stopping:
            self._wait()
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._control.fileno():
                    self._answer()
                else:
                    self._read(*self._inputs[descriptor])
            self._send()

    def _wait(self) -> None:
        # select takes microseconds where epoll rounds up to whole milliseconds
        due = self.wire.next_due()
        timeout = None if due is None else max(0.0, due - _WAKE_S - time.monotonic())
        select.select([self._poll.fileno()], [], [], timeout)

    def _read(self, pair: int, source: socket.socket) -> None:
        # The kernel's stamps are wall time: both clocks are read at one moment to relate them.
        offset = time.monotonic() - time.clock_gettime(time.CLOCK_REALTIME)
        for _ in range(_BATCH):
            try:
                frame, ancillary, _, _ = source.recvmsg(_FRAME_BYTES, _ANCILLARY_BYTES)
            except OSError:  # nothing left, or the interface is down for now
                return
            self.wire.accept(_came_at(ancillary) + offset, pair, frame)

    def _send(self) -> None:
        counters = self.wire.counters
        for pair, frame in self.wire.due(time.monotonic()):
            try:
                self._outputs[pair].send(frame)
                counters.forwarded += 1
            except OSError:
                counters.refused += 1

    def _answer(self) -> None:
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(0.1)  # the wire must not wait for a slow asker
            try:
                connection.send(json.dumps(self._handle(connection.recv(_MESSAGE_BYTES))).encode())
            except OSError:
                return

    def _handle(self, request: bytes) -> dict[str, Any]:
        try:
            wanted = json.loads(request)
            if wanted == _STOP:
                self._stopping = True
            elif "detours" in wanted:
                self._divert(tuple(Detour(**one) for one in wanted["detours"]))
            elif wanted:
                self.wire.quality = Quality(**wanted)
        except (ValueError, TypeError, RelayError) as error:
            return {"error": str(error)}
        return {
            "quality": asdict(self.wire.quality),
            "detours": [asdict(one) for one in self._detours],
            "queued": len(self.wire),
            "counters": asdict(self.wire.counters),
        }

    def _divert(self, detours: tuple[Detour, ...]) -> None:
        if len(detours) > MAX_DETOURS:
            raise RelayError(f"at most {MAX_DETOURS} detours, not {len(detours)}")
        for one in detours:
            if one.source not in self._numbers:
                raise RelayError(f"nothing is read from {one.source!r}")
        self.wire.extra_ms = {(self._numbers[d.source], d.mac): d.extra_ms for d in detours}
        self._detours = detours


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What a running relay tells of itself."""

    quality: Quality
    detours: tuple[Detour, ...]
    queued: int
    counters: Counters


class RelayControl:
    """Reads and changes a running relay."""

    def __init__(self, path: Path, timeout_s: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout_s

    def status(self) -> RelayStatus:
        """Ask; raises RelayError."""
        return self._ask({})

    def set(self, quality: Quality) -> RelayStatus:
        """Change delay and loss, both; raises RelayError."""
        return self._ask(asdict(quality))

    def divert(self, detours: Iterable[Detour]) -> RelayStatus:
        """Replace all detours by these; raises RelayError."""
        return self._ask({"detours": [asdict(one) for one in detours]})

    def stop(self) -> RelayStatus:
        """End the relay; frames under way are lost. Raises RelayError."""
        return self._ask(_STOP)

    def _ask(self, request: Mapping[str, Any]) -> RelayStatus:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
            asker.settimeout(self._timeout)
            try:
                asker.connect(str(self._path))
                asker.send(json.dumps(request).encode())
                answer = json.loads(asker.recv(_MESSAGE_BYTES) or b"{}")
            except (OSError, ValueError) as error:
                raise RelayError(f"no answer from the relay at {self._path}: {error}") from error
        if "error" in answer or not answer:
            raise RelayError(answer.get("error", "the relay hung up"))
        return RelayStatus(
            Quality(**answer["quality"]),
            tuple(Detour(**one) for one in answer["detours"]),
            answer["queued"],
            Counters(**answer["counters"]),
        )


def _came_at(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Return when a frame came, however late it is read: wall time, seconds."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = map(int, _TIMESPEC.unpack(data))
            return seconds + nanoseconds / 1e9
    return time.clock_gettime(time.CLOCK_REALTIME)


def _input(interface: str) -> socket.socket:
    opened = _packet_socket(interface, _ETH_P_ALL)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
    return opened


def _output(interface: str) -> socket.socket:
    return _packet_socket(interface, 0)  # protocol 0: it receives nothing


def _packet_socket(interface: str, protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setblocking(False)
    try:
        opened.bind((interface, protocol))
    except OSError as error:
        opened.close()
        raise RelayError(f"{interface}: {error.strerror}") from error
    return opened


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()
    return listener


def _pair(text: str) -> tuple[str, str]:
    source, colon, target = text.partition(":")
    if not (source and colon and target):
        raise argparse.ArgumentTypeError(f"{text!r} is not FROM:TO")
    return source, target


def main(arguments: list[str] | None = None) -> int:
    """Run a relay until SIGTERM."""
    parser = argparse.ArgumentParser(prog="wgmap-chaos-relay")
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT")
    parser.add_argument("pairs", type=_pair, nargs="*", metavar="FROM:TO")
    options = parser.parse_args(arguments)
    gc.disable()  # nothing here is cyclic, and a pause would be a delay
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # ns; 50 us are usual
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    except PermissionError:
        print("relay: not allowed to raise its priority; delays will be less exact")
    try:
        Relay(options.pairs, options.control, Quality(options.delay, options.loss)).run()
    except WgmapError as error:
        print(f"relay: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
