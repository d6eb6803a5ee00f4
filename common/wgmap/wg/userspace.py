"""WireGuard in a process: ``wireguard-go``, which carries a TUN device and answers on a socket.

The process belongs to nobody: it has a session of its own, no descriptor of ours, and outlives
us, because stopping a daemon must never stop a tunnel. (Under systemd it wants a unit of its own
as well: stopping a unit ends all processes of its control group.)
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import re
import select
import shutil
import signal
import socket
import struct
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wgmap.wg import uapi
from wgmap.wg.device import DeviceConfig, DeviceError, DeviceState

SOCKETS = Path("/var/run/wireguard")
REQUEST_S = 30.0  # a device of 10,000 peers answers within a second
START_S = 10.0  # a loaded machine; normally 20 ms
END_S = 3.0
ABSENT_S = 0.5
POLL_S = 0.005
INLINE_BYTES = 128 * 1024
INLINE_LOOK_BYTES = 1 << 20
RECEIVE_BYTES = 64 * 1024
MORE_BYTES = 256 * 1024  # of a long answer in one turn of the loop: what a unix socket holds
PROMPT_BYTES = 4096  # a change of this size is waited for, for at most
PROMPT_MS = 2
LOG_TAIL_BYTES = 400
# Go's scheduler looks after its threads every 20 us while one of them was busy a moment ago, and
# each look takes the processor from whoever has it. The kernel may put looks off by so much; beyond
# 0.5 ms packets themselves wait for them.
SLACK_NS = 200_000
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30  # prctl(2); inherited by what is started
_NAME = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")
_BROKEN = (ConnectionError, asyncio.IncompleteReadError, FileNotFoundError)


class UserspaceDevice:
    """A device carried by a living process; requests are answered one after another."""

    def __init__(self, name: str, connection: "Connection") -> None:
        self._name = name
        self._connection = connection
        self._carrier = connection.pid
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    @property
    def carrier_pid(self) -> int:
        """The process that carries the interface."""
        return self._carrier

    async def configure(self, config: DeviceConfig) -> None:
        """Apply a difference as one request; raises DeviceError (EINVAL: refused)."""
        with _uapi_errors(self._name):
            self._judge(await self._ask(uapi.encode(config)))

    def begin(self, config: DeviceConfig) -> Awaitable[None] | None:
        """Apply a difference at once where nothing else is asked; see ``Device``."""
        if self._closed or self._turn.locked():
            return self.configure(config)
        with _uapi_errors(self._name):
            request = uapi.encode(config)
            try:
                answer = self._connection.prompt(request)
            except OSError:
                return self.configure(config)  # which makes a new connection where this one broke
            if answer is None:
                return self._finish(request)
            self._judge(answer)
        return None

    async def _finish(self, request: bytes) -> None:
        with _uapi_errors(self._name):
            self._judge(await self._ask(request, owed=True))

    def _judge(self, answer: bytes) -> None:
        code = uapi.parse_errno(answer)
        if code:
            raise DeviceError(self._name, code, "the change was refused")

    async def read(self) -> DeviceState:
        """Read the whole state; raises DeviceError."""
        with _uapi_errors(self._name):
            answer = await self._ask(uapi.GET)
            if len(answer) <= INLINE_BYTES:
                return uapi.parse_state(self._name, answer)
            # 10 us a peer: thousands of them would hold the loop for too long.
            return await asyncio.to_thread(uapi.parse_state, self._name, answer)

    async def look(self) -> uapi.UapiLook:
        """Read the whole state for questions about some peers; raises DeviceError."""
        with _uapi_errors(self._name):
            answer = await self._ask(uapi.GET)
            if len(answer) <= INLINE_LOOK_BYTES:
                return uapi.parse_look(self._name, answer)
            return await asyncio.to_thread(uapi.parse_look, self._name, answer)

    async def close(self) -> None:
        """Let go of the device; the interface and its tunnels stay."""
        self._closed = True
        self._connection.drop()

    async def _ask(self, request: bytes, *, owed: bool = False) -> bytes:
        """Ask; ``owed``: it was asked already, the answer is to be waited for."""
        async with self._turn:
            if self._closed:
                raise DeviceError(self._name, errno.EBADF, "the device was closed")
            try:
                async with asyncio.timeout(REQUEST_S):
                    return await self._ask_twice(request, owed=owed)
            except TimeoutError as error:
                raise DeviceError(self._name, errno.ETIMEDOUT, "no answer") from error
            except OSError as error:
                raise DeviceError(self._name, error.errno or errno.EIO, "no answer") from error

    async def _ask_twice(self, request: bytes, *, owed: bool) -> bytes:
        """Ask; where the connection broke, ask once more on a new one.

        Repeating is harmless: a difference applied twice is the same.
        """
        try:
            late = await self._connection.settle(take=owed)
            return await self._connection.ask(request) if late is None else late
        except _BROKEN:
            await self._reconnect()
        try:
            return await self._connection.ask(request)
        except asyncio.IncompleteReadError as error:
            raise DeviceError(self._name, errno.ECONNRESET, "the carrier hangs up") from error

    async def _reconnect(self) -> None:
        try:
            self._connection = await Connection.open(self._name)
        except OSError as error:
            raise DeviceError(self._name, errno.ENODEV, "its process is gone") from error
        if self._connection.pid != self._carrier:
            # A new process has an empty device. A difference applied to that would look like
            # success, so the owner has to open it anew and apply everything.
            self._connection.drop()
            raise DeviceError(self._name, errno.ENODEV, "its process was replaced")


class Connection:
    """One kept-open connection to a carrier."""

    def __init__(self, carrier: socket.socket, pid: int) -> None:
        self._carrier = carrier
        self._poll = select.poll()
        self._poll.register(carrier, select.POLLIN)
        self._owed: bytearray | None = None  # what has come of an answer that was not waited for
        self._late: bytes | None = None  # that answer, until it is taken
        self.pid = pid

    @classmethod
    async def open(cls, interface: str) -> "Connection":
        """Connect to the carrier of an interface; raises OSError."""
        carrier = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(carrier, str(socket_path(interface)))
            # Who called listen() on that socket; no file needed, and no name of a process.
            credentials = carrier.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except BaseException:
            carrier.close()
            raise
        return cls(carrier, struct.unpack("iII", credentials)[0])

    def prompt(self, request: bytes) -> bytes | None:
        """Send a request, return the answer; None: it takes longer than PROMPT_MS and is owed.

        Most changes are answered within 0.3 ms. A turn of the loop takes longer, and this is on
        the path of every first packet. Raises OSError: nothing was asked.
        """
        if self._owed is not None or self._late is not None or len(request) > PROMPT_BYTES:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self._carrier.send(request) != len(request):
            self.drop()
            raise ConnectionResetError(errno.ECONNRESET, "a request was cut")
        self._poll.poll(PROMPT_MS)
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = self._carrier.recv(RECEIVE_BYTES)
            if not data:
                self.drop()
                raise ConnectionResetError(errno.ECONNRESET, "the carrier hangs up")
        if data.endswith(uapi.END):
            return data
        self._owed = bytearray(data)
        return None

    async def settle(self, *, take: bool) -> bytes | None:
        """Wait for the answer that is owed, and ``take`` it; raises as ``ask`` does."""
        if self._owed is not None:
            try:
                self._late = await self._receive(asyncio.get_running_loop(), self._owed)
            except BaseException:
                self.drop()
                raise
            self._owed = None
        late = self._late
        if take:
            self._late = None
        return late if take else None

    async def ask(self, request: bytes) -> bytes:
        """Send a request, return the answer; raises OSError or IncompleteReadError."""
        if self._carrier.fileno() < 0:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was dropped")
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._carrier, request)
            return await self._receive(loop, bytearray())
        except BaseException:
            # Also when cancelled: an answer that comes later would be taken for the next one's.
            self.drop()
            raise

    async def _receive(self, loop: asyncio.AbstractEventLoop, answer: bytearray) -> bytes:
        while not answer.endswith(uapi.END):
            size = MORE_BYTES if answer else RECEIVE_BYTES
            data = await loop.sock_recv(self._carrier, size)
            if not data:
                raise asyncio.IncompleteReadError(bytes(answer), None)
            answer += data
            if len(answer) > uapi.MAX_ANSWER_BYTES:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return bytes(answer)

    def drop(self) -> None:
        """Close the connection at once."""
        if self._carrier.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        # Before the number of the descriptor is another one's.
        loop.remove_reader(self._carrier)
        loop.remove_writer(self._carrier)
        self._carrier.close()


class UserspaceBackend:
    """Interfaces by wireguard-go.

    ``log_dir``: where NAME.log takes the processes' errors; None: nowhere.
    """

    name = "userspace"

    def __init__(self, log_dir: Path | None = None, program: str = "wireguard-go") -> None:
        self._log_dir = log_dir
        self._program = program

    async def open(self, interface: str) -> UserspaceDevice:
        """Adopt the interface if its process lives, else start one; raises DeviceError.

        The process runs in the network namespace of the calling thread.
        """
        _check_name(interface)
        connection = await _adopt(interface)
        if connection is None:
            await self._start(interface)
            connection = await self._await_start(interface)
        _check_namespace(interface, connection)
        return UserspaceDevice(interface, connection)

    async def remove(self, interface: str) -> None:
        """End the interface's process and remove what it leaves; raises DeviceError.

        No error when there is none; EEXIST when the interface is not carried by wireguard-go.
        """
        _check_name(interface)
        connection = await _connect(interface)  # not asked: it may be a process that hangs
        if connection is not None:
            connection.drop()
            _check_namespace(interface, connection)
            await _end(interface, connection.pid)
        _remove_socket(interface)
        await _check_absent(interface)

    async def _start(self, interface: str) -> None:
        program = shutil.which(self._program)
        if program is None:
            raise DeviceError(interface, errno.ENOENT, f"no program {self._program}")
        await _check_absent(interface)
        # setsid --fork: the process is nobody's child, so it neither ends with us nor becomes a
        # zombie. -f: it must listen itself, because the listener's pid is how it is found.
        with self._output(interface) as output, _slack(SLACK_NS):
            launcher = await asyncio.create_subprocess_exec(
                *("setsid", "--fork", program, "-f", interface),
                env={"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "error"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
            await launcher.wait()

    async def _await_start(self, interface: str) -> Connection:
        try:
            async with asyncio.timeout(START_S):
                # Polled: a socket that appears in a shared directory is no event.
                while (connection := await _adopt(interface)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            what = f"{self._program} does not start {self._log_tail(interface)}".rstrip()
            raise DeviceError(interface, errno.ETIMEDOUT, what) from error
        return connection

    @contextmanager
    def _output(self, interface: str) -> Iterator[int]:
        path = Path(os.devnull) if self._log_dir is None else self._log_path(interface)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            code = error.errno or errno.EIO
            raise DeviceError(interface, code, f"cannot write {path}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _log_path(self, interface: str) -> Path:
        return (self._log_dir or Path("/")) / f"{interface}.log"

    def _log_tail(self, interface: str) -> str:
        if self._log_dir is None:
            return ""
        try:
            data = self._log_path(interface).read_bytes()[-LOG_TAIL_BYTES:]
        except OSError:
            return ""
        return f"({' / '.join(data.decode(errors='replace').split(chr(10))).strip(' /')})"


@contextmanager
def _slack(nanoseconds: int) -> Iterator[None]:
    """Have what is started meanwhile by this thread run with a timer slack."""
    prctl = ctypes.CDLL(None).prctl
    before = prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    prctl(_PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_TIMERSLACK, before, 0, 0, 0)


def socket_path(interface: str) -> Path:
    """Return where the process that carries an interface listens."""
    return SOCKETS / f"{interface}.sock"


def exists(interface: str) -> bool:
    """Tell whether this network namespace has an interface of that name."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


async def _connect(interface: str) -> Connection | None:
    """Connect to the interface's process; None where nothing listens behind the socket."""
    try:
        return await Connection.open(interface)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise DeviceError(interface, error.errno or errno.EIO, "its socket") from error


async def _adopt(interface: str) -> Connection | None:
    """Connect to the interface's process; None where none lives, or no longer than this."""
    connection = await _connect(interface)
    if connection is None:
        return None
    try:
        async with asyncio.timeout(START_S):
            await connection.ask(uapi.encode(DeviceConfig()))
    except TimeoutError as error:
        what = f"process {connection.pid} does not answer"
        raise DeviceError(interface, errno.ETIMEDOUT, what) from error
    except _BROKEN:
        return None  # it was dying when it took the connection
    return connection


async def _check_absent(interface: str) -> None:
    """Refuse to touch an interface that no wireguard-go carries."""
    loop = asyncio.get_running_loop()
    end = loop.time() + ABSENT_S  # that of a dying process needs a moment
    while exists(interface):
        if loop.time() > end:
            raise DeviceError(interface, errno.EEXIST, "an interface without wireguard-go")
        await asyncio.sleep(POLL_S)


def _check_name(interface: str) -> None:
    if not _NAME.fullmatch(interface) or interface in {".", ".."}:
        raise DeviceError(interface, errno.EINVAL, "not a name for an interface")


def _check_namespace(interface: str, connection: Connection) -> None:
    """Refuse a carrier of another network namespace: the sockets' directory is common to all."""
    with contextlib.suppress(PermissionError, FileNotFoundError):
        theirs = Path(f"/proc/{connection.pid}/ns/net").stat()
        ours = Path("/proc/thread-self/ns/net").stat()
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
            return
        connection.drop()
        what = f"process {connection.pid} carries it in another network namespace"
        raise DeviceError(interface, errno.EADDRINUSE, what)


async def _end(interface: str, pid: int) -> None:
    """End a process; returns when it is gone (a descriptor of it cannot be taken by another)."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(process, number)
            except ProcessLookupError:
                return
            if await _gone(process):
                return
    except PermissionError as error:
        raise DeviceError(interface, errno.EPERM, f"cannot end process {pid}") from error
    finally:
        os.close(process)
    raise DeviceError(interface, errno.EBUSY, f"process {pid} does not end")


async def _gone(process: int) -> bool:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        async with asyncio.timeout(END_S):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
    return True


def _remove_socket(interface: str) -> None:
    try:
        socket_path(interface).unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(interface, error.errno or errno.EIO, "its stale socket") from error


@contextmanager
def _uapi_errors(interface: str) -> Iterator[None]:
    try:
        yield
    except uapi.UapiError as error:
        raise DeviceError(interface, errno.EPROTO, str(error)) from error
