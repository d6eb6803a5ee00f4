"""WireGuard in the kernel: links of kind ``wireguard``, configured over generic netlink."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NETLINK_GENERIC
from pyroute2.netlink.exceptions import NetlinkError

from wgmap.wg import genl
from wgmap.wg.device import DeviceConfig, DeviceError, DeviceState

RECEIVE_BYTES = 256 * 1024
REQUEST_S = 30.0
MAX_READS = 5  # of a device that changes while it is read
INLINE_MESSAGES = 16
MAX_DUMP_MESSAGES = 1 << 16
_NOT_OURS = {errno.EOPNOTSUPP, errno.ENODEV}


class Channel:
    """A generic netlink socket of the namespace in which it is made; one exchange at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_GENERIC
        )
        self._turn = asyncio.Lock()
        self._number = 0
        self._family = 0

    async def resolve(self) -> bool:
        """Find the WireGuard family; False where the kernel has none. Raises OSError."""
        async with self._turn:
            for message in await self._exchange(genl.get_family()):
                self._family = genl.family_of(message) or self._family
        return self._family != 0

    async def configure(self, interface: str, config: DeviceConfig) -> int:
        """Apply a configuration; returns the errno of the first refusal. Raises OSError."""
        async with self._turn:
            for request in genl.set_device(self._family, interface, config):
                code = (await self._exchange(request))[-1].code
                if code:
                    return code
        return 0

    def prompt(self, interface: str, config: DeviceConfig) -> int | None:
        """Apply what fits into one message; its errno, or None: nothing was asked. Raises OSError.

        The kernel works while we send; the answer is there when that returns.
        """
        requests = list(genl.set_device(self._family, interface, config))
        if self._turn.locked() or len(requests) != 1:
            return None
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._socket.send(genl.numbered(requests[0], self._number))
        while True:
            for message in genl.parse(self._socket.recv(RECEIVE_BYTES)):
                if message.sequence == self._number and message.code is not None:
                    return message.code

    async def read(self, interface: str) -> list[genl.Message]:
        """Return the messages of a dump. Raises OSError."""
        request = genl.get_device(self._family, interface)
        async with self._turn:
            for _ in range(MAX_READS):
                messages = await self._exchange(request)
                if not any(message.interrupted for message in messages):
                    return messages
        raise OSError(errno.EAGAIN, "it changes all the time")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _exchange(self, request: bytes) -> list[genl.Message]:
        """Send a request and return what is answered, the last message with a code."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        loop = asyncio.get_running_loop()
        messages: list[genl.Message] = []
        async with asyncio.timeout(REQUEST_S):
            self._socket.send(genl.numbered(request, self._number))
            while len(messages) < MAX_DUMP_MESSAGES:
                for message in genl.parse(await loop.sock_recv(self._socket, RECEIVE_BYTES)):
                    if message.sequence != self._number:
                        continue  # left over from an exchange that was cancelled
                    messages.append(message)
                    if message.code is not None:
                        return messages
        raise OSError(errno.EMSGSIZE, "an answer without end")


class KernelDevice:
    """A device of the kernel."""

    def __init__(self, name: str, channel: Channel) -> None:
        self._name = name
        self._channel = channel

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    async def configure(self, config: DeviceConfig) -> None:
        """Apply a difference, of many peers in several messages; raises DeviceError."""
        with _device_errors(self._name, "cannot configure"):
            code = await self._channel.configure(self._name, config)
        if code:
            raise DeviceError(self._name, code, "the change was refused")

    def begin(self, config: DeviceConfig) -> Awaitable[None] | None:
        """Apply a difference at once where nothing else is asked; see ``Device``."""
        with _device_errors(self._name, "cannot configure"):
            code = self._channel.prompt(self._name, config)
        if code:
            raise DeviceError(self._name, code, "the change was refused")
        return self.configure(config) if code is None else None

    async def read(self) -> DeviceState:
        """Read the whole state; raises DeviceError."""
        with _device_errors(self._name, "cannot read"):
            messages = await self._messages()
            if len(messages) <= INLINE_MESSAGES:
                return genl.read_state(self._name, messages)
            # 10 us a peer: thousands of them would hold the loop for too long.
            return await asyncio.to_thread(genl.read_state, self._name, messages)

    async def look(self) -> genl.GenlLook:
        """Read the whole state for questions about some peers; raises DeviceError."""
        with _device_errors(self._name, "cannot read"):
            messages = await self._messages()
            if len(messages) <= INLINE_MESSAGES:
                return genl.read_look(self._name, messages)
            return await asyncio.to_thread(genl.read_look, self._name, messages)

    async def _messages(self) -> list[genl.Message]:
        messages = await self._channel.read(self._name)
        if code := messages[-1].code:
            raise DeviceError(self._name, code, "cannot read the device")
        return messages

    async def close(self) -> None:
        """Let go of the device; the interface and its tunnels stay."""
        self._channel.close()


class KernelBackend:
    """Interfaces by the kernel's WireGuard, in the network namespace of the calling thread."""

    name = "kernel"

    async def open(self, interface: str) -> KernelDevice:
        """Adopt the interface, else create it; raises DeviceError.

        EEXIST: an interface of another kind has the name. EOPNOTSUPP: no WireGuard here.
        """
        device = await _attach(interface)
        try:
            async with AsyncIPRoute() as links:
                await _create(links, interface)
            await _check_kind(device)
        except DeviceError:
            await device.close()
            raise
        return device

    async def remove(self, interface: str) -> None:
        """Remove the interface; no error when there is none, EEXIST when it is another kind."""
        device = await _attach(interface)
        try:
            async with AsyncIPRoute() as links:
                if index := await links.link_lookup(ifname=interface):
                    await _check_kind(device)
                    with _device_errors(interface, "cannot remove"):
                        await links.link("del", index=index[0])
        finally:
            await device.close()


async def available() -> bool:
    """Tell whether this kernel has WireGuard (its module is loaded if need be)."""
    channel = Channel()
    try:
        return await channel.resolve()
    except OSError:
        return False
    finally:
        channel.close()


async def _attach(interface: str) -> KernelDevice:
    channel = Channel()
    with _device_errors(interface, "no WireGuard"):
        if await channel.resolve():
            return KernelDevice(interface, channel)
    channel.close()
    raise DeviceError(interface, errno.EOPNOTSUPP, "the kernel has no WireGuard")


async def _create(links: AsyncIPRoute, interface: str) -> None:
    try:
        await links.link("add", ifname=interface, kind="wireguard")
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise DeviceError(interface, error.code, "cannot create it") from error


async def _check_kind(device: KernelDevice) -> None:
    try:
        await device.read()
    except DeviceError as error:
        if error.errno not in _NOT_OURS:
            raise
        what = "an interface that is not the kernel's WireGuard"
        raise DeviceError(device.name, errno.EEXIST, what) from error


@contextmanager
def _device_errors(interface: str, what: str) -> Iterator[None]:
    try:
        yield
    except genl.GenlError as error:
        raise DeviceError(interface, errno.EPROTO, str(error)) from error
    except TimeoutError as error:
        raise DeviceError(interface, errno.ETIMEDOUT, what) from error
    except NetlinkError as error:
        raise DeviceError(interface, error.code, what) from error
    except OSError as error:
        raise DeviceError(interface, error.errno or errno.EIO, what) from error
