"""Links, addresses and routes of one network namespace, through rtnetlink."""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nlsocket import NetlinkRequest
from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from wgmap.addresses import IPAddress
from wgmap.net.changes import ChangeListener
from wgmap.net.errors import NetworkError
from wgmap.net.plan import MAIN_TABLE, Difference, IPInterface, Route, route_difference

PROTOCOL = 87  # rtm_protocol of our routes: `ip route` shows "proto 87"; others' are not touched
IN_FLIGHT = 128  # requests that await their answer: well within the socket's receive buffer
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
IPV6_DEFAULT_METRIC = 1024
IFA_F_NODAD = 0x02
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40
_VANISHED = {errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETDOWN}


@dataclass(frozen=True, slots=True)
class AddressState:
    """An address of an interface; ``flags`` and ``scope`` as in ifaddrmsg (rtnetlink(7))."""

    interface: str
    address: IPInterface
    scope: int
    flags: int

    @property
    def usable(self) -> bool:
        """Whether new connections may come from it: global, checked, not running out."""
        refused = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED
        return self.scope == SCOPE_UNIVERSE and not self.flags & refused


class Network:
    """The network namespace of the thread that enters it; use as ``async with Network()``.

    Every method raises NetworkError with the kernel's errno.
    """

    def __init__(self) -> None:
        self._netlink = AsyncIPRoute(strict_check=True)
        self._indices: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await self._netlink.setup_endpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._netlink.close()

    # Links

    async def index(self, interface: str) -> int:
        """Return an interface's index, from memory where known (see ``forget``); or ENODEV."""
        if interface not in self._indices:
            with _errors(f"interface {interface}"):
                (link,) = await self._netlink.link("get", ifname=interface)
            self._indices[interface] = link["index"]
        return self._indices[interface]

    def forget(self, interface: str) -> None:
        """Forget the index: the interface may have been made anew under its name."""
        self._indices.pop(interface, None)

    async def up(self, interface: str, mtu: int | None = None) -> None:
        """Set a link up, with an MTU where one is given."""
        options = {} if mtu is None else {"mtu": mtu}
        with self._link_errors(interface, f"{interface} up"):
            index = await self.index(interface)
            await self._netlink.link("set", index=index, state="up", **options)

    async def delete_link(self, interface: str) -> None:
        """Delete a link; no error when there is none."""
        with self._link_errors(interface, f"delete {interface}", {errno.ENODEV}):
            await self._netlink.link("del", index=await self.index(interface))
        self.forget(interface)

    # Addresses

    async def add_address(self, interface: str, address: IPInterface) -> None:
        """Add an address; no error when it is there. IPv6: usable at once (nodad)."""
        flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
        with self._link_errors(interface, f"add {address} to {interface}", {errno.EEXIST}):
            await self._netlink.addr("add", **await self._address(interface, address), **flags)

    async def delete_address(self, interface: str, address: IPInterface) -> None:
        """Delete an address; no error when it is not there."""
        with self._link_errors(interface, f"delete {address} from {interface}", _VANISHED):
            await self._netlink.addr("del", **await self._address(interface, address))

    async def addresses(self) -> dict[str, tuple[AddressState, ...]]:
        """Return all addresses of all interfaces; those without any are left out."""
        found: dict[str, list[AddressState]] = {}
        with _errors("list addresses"):
            names = {
                link["index"]: link.get_attr("IFLA_IFNAME")
                async for link in await self._netlink.link("dump")
            }
            async for message in await self._netlink.addr("dump"):
                # A link that came in between is in the next listing; its event is on the way.
                if (name := names.get(message["index"])) is not None:
                    found.setdefault(name, []).append(_address_state(name, message))
        return {name: tuple(states) for name, states in found.items()}

    # Routes

    async def change_routes(
        self, replace: Iterable[Route] = (), delete: Iterable[Route] = ()
    ) -> None:
        """Replace and delete routes, all requests on their way before the first answer is read.

        A route to delete that is gone is no error. Where the kernel refuses some, the others
        are changed all the same, and the first refusal is raised.
        """
        calls: list[Callable[[], Awaitable[object]]] = []
        for command, routes in (("replace", replace), ("del", delete)):
            for route in routes:
                fields = _route_fields(route, await self._route_index(route, command))
                calls.append(partial(self._netlink.route, command, **fields))
        await self._pipelined(calls)

    async def apply_routes(self, change: Difference[Route]) -> None:
        """Apply what ``plan.route_difference`` found."""
        await self.change_routes(change.add, change.delete)

    async def routes(self, interface: str, table: int = MAIN_TABLE) -> list[Route]:
        """Return our routes (PROTOCOL) over an interface; the kernel filters."""
        found = []
        with self._link_errors(interface, f"list routes of {interface}"):
            index = await self.index(interface)
            for family in (socket.AF_INET, socket.AF_INET6):
                message = rtmsg()
                message["family"], message["proto"] = family, PROTOCOL
                message["attrs"] = [["RTA_OIF", index], ["RTA_TABLE", table]]
                request = NetlinkRequest(
                    self._netlink,
                    message,
                    msg_type=RTM_GETROUTE,
                    msg_flags=NLM_F_REQUEST | NLM_F_DUMP,
                )
                await request.send()
                found += [_route(interface, answer) async for answer in request.response()]
        return found

    async def set_routes(
        self, interface: str, wanted: Sequence[Route], table: int = MAIN_TABLE
    ) -> Difference[Route]:
        """Make our routes over an interface in a table be these; returns what was changed."""
        change = route_difference(wanted, await self.routes(interface, table))
        await self.apply_routes(change)
        return change

    def changes(self) -> ChangeListener:
        """Listen to changes from now on; our own routes are left out."""
        return ChangeListener(PROTOCOL)

    async def _route_index(self, route: Route, command: str) -> int:
        try:
            return await self.index(route.interface)
        except NetworkError:
            if command != "del":
                raise
            return 0  # no interface, no route: whatever is asked for will not be found

    async def _pipelined(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        failures: list[BaseException] = []
        for start in range(0, len(calls), IN_FLIGHT):
            results = await asyncio.gather(
                *(call() for call in calls[start : start + IN_FLIGHT]), return_exceptions=True
            )
            failures += [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, NetlinkError) or failure.code not in _VANISHED:
                with _errors("change routes"):
                    raise failure

    async def _address(self, interface: str, address: IPInterface) -> dict[str, Any]:
        return {
            "index": await self.index(interface),
            "address": str(address.ip),
            "prefixlen": address.network.prefixlen,
        }

    @contextmanager
    def _link_errors(
        self, interface: str, what: str, ignored: frozenset[int] | set[int] = frozenset()
    ) -> Iterator[None]:
        try:
            with _errors(what):
                yield
        except NetworkError as error:
            if error.errno == errno.ENODEV:
                self.forget(interface)
            if error.errno not in ignored:
                raise


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(what, error.code) from error
    except OSError as error:
        raise NetworkError(what, error.errno or errno.EIO) from error


def _route_fields(route: Route, index: int) -> dict[str, Any]:
    ipv6 = route.prefix.version == 6
    fields: dict[str, Any] = {
        "family": socket.AF_INET6 if ipv6 else socket.AF_INET,
        "dst": str(route.prefix),
        "oif": index,
        "proto": PROTOCOL,
        "table": route.table,
        "scope": SCOPE_UNIVERSE if ipv6 else SCOPE_LINK,
    }
    if metric := route.metric or (IPV6_DEFAULT_METRIC if ipv6 else 0):
        fields["priority"] = metric
    if route.source is not None:
        fields["prefsrc"] = str(route.source)
    return fields


def _route(interface: str, message: Any) -> Route:
    default = "0.0.0.0" if message["family"] == socket.AF_INET else "::"
    address = ipaddress.ip_address(message.get_attr("RTA_DST") or default)
    source = message.get_attr("RTA_PREFSRC")
    metric = message.get_attr("RTA_PRIORITY") or 0
    if address.version == 6 and metric == IPV6_DEFAULT_METRIC:
        metric = 0
    return Route(
        prefix=ipaddress.ip_network((address, message["dst_len"])),
        interface=interface,
        source=None if source is None else _ip(source),
        metric=metric,
        table=message.get_attr("RTA_TABLE") or message["table"],
    )


def _ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def _address_state(interface: str, message: Any) -> AddressState:
    # On a link with two ends IFA_ADDRESS is the other end's and IFA_LOCAL our own.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return AddressState(
        interface,
        ipaddress.ip_interface((text, message["prefixlen"])),
        message["scope"],
        message.get_attr("IFA_FLAGS") or message["flags"],
    )
