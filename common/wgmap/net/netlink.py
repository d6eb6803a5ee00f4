"""Links, addresses and routes of one network namespace, through rtnetlink."""

import asyncio
import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nlsocket import NetlinkRequest
from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_BLACKHOLE, FR_ACT_TO_TBL
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from wgmap.addresses import IPAddress
from wgmap.net.changes import ChangeListener
from wgmap.net.errors import NetworkError
from wgmap.net.plan import (
    MAIN_TABLE,
    Difference,
    IPInterface,
    Route,
    Rule,
    difference,
    route_difference,
)
from wgmap.net.rtnetlink import (
    IPV6_DEFAULT_METRIC,
    SCOPE_UNIVERSE,
    delete_route,
    parse_acknowledgements,
    replace_route,
)

PROTOCOL = 87  # rtm_protocol of our routes: `ip route` shows "proto 87"; others' are not touched
IN_FLIGHT = 64  # requests in one call: their answers fit the socket's receive buffer
RECEIVE_BYTES = 64 * 1024
DUMP_PAUSES_S = (0.01, 0.03, 0.1, 0.3)
NO_INDEX = 0x7FFFFFFF
SIOCGIFINDEX = 0x8933
RULE_PRIORITY = 4342
IFA_F_NODAD = 0x02
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40
_INDEX_REQUEST = struct.Struct("=16si20x")  # ifreq: name, index
_Encoder: TypeAlias = Callable[[Route, int, int, int], bytes]
_Request: TypeAlias = tuple[Route, "partial[bytes]"]
_Waiting: TypeAlias = dict[int, tuple[Route, bool]]  # by sequence; whether it is a deletion
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
        self._sequence = 0
        self._turn = asyncio.Lock()
        self._listing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        # All sockets here: they are of the namespace in which they are made.
        await self._netlink.setup_endpoint()
        self._routes = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._netlink.close()
        self._routes.close()
        self._inet.close()

    # Links

    def index(self, interface: str) -> int:
        """Return an interface's index; raises NetworkError (ENODEV).

        Asked of the kernel each time (1 us): an interface that was made anew has another one.
        """
        with _errors(f"interface {interface}"):
            request = _INDEX_REQUEST.pack(interface.encode(), 0)
            answer = fcntl.ioctl(self._inet, SIOCGIFINDEX, request)
        index: int = _INDEX_REQUEST.unpack(answer)[1]
        return index

    async def up(self, interface: str, mtu: int | None = None) -> None:
        """Set a link up, with an MTU where one is given."""
        options = {} if mtu is None else {"mtu": mtu}
        with _errors(f"{interface} up"):
            index = self.index(interface)
            await self._netlink.link("set", index=index, state="up", **options)

    async def delete_link(self, interface: str) -> None:
        """Delete a link; no error when there is none."""
        with _errors(f"delete {interface}", {errno.ENODEV}):
            await self._netlink.link("del", index=self.index(interface))

    async def forbid_forwarding(self, interface: str) -> None:
        """Drop what comes in by an interface and is not for this machine; idempotent.

        A routing rule, because the sysctl ``forwarding`` of an IPv6 interface does not stop
        forwarding. Rules name the interface, so they outlive it: those of ours whose interface is
        gone are removed here.
        """
        await self._forget_absent()
        for family in (socket.AF_INET, socket.AF_INET6):
            with _errors(f"rule for {interface}", {errno.EEXIST}):
                await self._netlink.rule("add", **_no_forwarding(interface, family))

    async def _forget_absent(self) -> None:
        """Remove our rules against forwarding whose interface is gone."""
        for message in await self._dump_rules():
            name = message.get_attr("FRA_IIFNAME")
            ours = message.get_attr("FRA_PROTOCOL") == PROTOCOL
            if ours and message["action"] == FR_ACT_BLACKHOLE and not self._has(name):
                with _errors(f"rule for {name}", {errno.ENOENT}):
                    await self._netlink.rule("del", **_no_forwarding(name, message["family"]))

    def _has(self, interface: str) -> bool:
        try:
            return self.index(interface) > 0
        except NetworkError as error:
            if error.errno != errno.ENODEV:
                raise
            return False

    async def permit_forwarding(self, interface: str) -> None:
        """Undo ``forbid_forwarding``; no error where there is nothing to undo."""
        for family in (socket.AF_INET, socket.AF_INET6):
            with _errors(f"rule for {interface}", {errno.ENOENT}):
                await self._netlink.rule("del", **_no_forwarding(interface, family))

    # Rules

    async def rules(self) -> list[Rule]:
        """Return our policy rules (PROTOCOL) of both families that look a table up."""
        return [
            _rule(one)
            for one in await self._dump_rules()
            if one.get_attr("FRA_PROTOCOL") == PROTOCOL and one["action"] == FR_ACT_TO_TBL
        ]

    async def _dump_rules(self) -> list[Any]:
        with _errors("list rules"):
            families = (socket.AF_INET, socket.AF_INET6)
            asks = [partial(self._netlink.rule, "dump", family=family) for family in families]
            return [message for ask in asks for message in await self._dump(ask)]

    async def _dump(self, ask: Callable[[], Awaitable[AsyncIterator[Any]]]) -> list[Any]:
        """Return a listing's messages, one listing after the other.

        The kernel gives a socket one at a time (EBUSY), and one that was cancelled goes on there
        until the rest of it is read.
        """
        async with self._listing:
            for pause_s in DUMP_PAUSES_S:
                try:
                    return [message async for message in await ask()]
                except NetlinkError as error:
                    if error.code != errno.EBUSY:
                        raise
                await asyncio.sleep(pause_s)
            return [message async for message in await ask()]

    async def set_rules(self, wanted: Iterable[Rule]) -> Difference[Rule]:
        """Make our policy rules these; new ones first. Returns what was changed."""
        change = difference(wanted, await self.rules())
        for rule in change.add:
            with _errors(f"rule {rule.priority}", {errno.EEXIST}):
                await self._netlink.rule("add", **_rule_request(rule))
        for rule in change.delete:
            with _errors(f"rule {rule.priority}", {errno.ENOENT}):
                await self._netlink.rule("del", **_rule_request(rule))
        return change

    # Addresses

    async def add_address(
        self, interface: str, address: IPInterface, scope: int = SCOPE_UNIVERSE
    ) -> None:
        """Add an address; no error when it is there. IPv6: usable at once (nodad)."""
        flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
        with _errors(f"add {address} to {interface}", {errno.EEXIST}):
            wanted = {**self._address(interface, address), **flags, "scope": scope}
            await self._netlink.addr("add", **wanted)

    async def delete_address(self, interface: str, address: IPInterface) -> None:
        """Delete an address; no error when it is not there."""
        with _errors(f"delete {address} from {interface}", _VANISHED):
            await self._netlink.addr("del", **self._address(interface, address))

    async def addresses(self) -> dict[str, tuple[AddressState, ...]]:
        """Return all addresses of all interfaces; those without any are left out."""
        found: dict[str, list[AddressState]] = {}
        with _errors("list addresses"):
            names = {
                link["index"]: link.get_attr("IFLA_IFNAME")
                for link in await self._dump(partial(self._netlink.link, "dump"))
            }
            for message in await self._dump(partial(self._netlink.addr, "dump")):
                # A link that came in between is in the next listing; its event is on the way.
                if (name := names.get(message["index"])) is not None:
                    found.setdefault(name, []).append(_address_state(name, message))
        return {name: tuple(states) for name, states in found.items()}

    # Routes

    async def change_routes(
        self, replace: Iterable[Route] = (), delete: Iterable[Route] = ()
    ) -> None:
        """Replace and delete routes, many in one system call.

        A route to delete that is gone is no error. Where the kernel refuses some, the others
        are changed all the same, and the first refusal is raised.
        """
        async with self._turn:
            refused = await self._change(self._requests(replace, delete))
        if refused:
            raise refused[0]

    def begin_routes(self, replace: Iterable[Route]) -> Awaitable[None] | None:
        """Replace routes at once where that is possible: None when it is done; NetworkError.

        Else what is returned is to be awaited, as ``change_routes`` is.
        """
        requests = self._requests(replace, ())
        if self._turn.locked() or len(requests) > IN_FLIGHT:
            return self.change_routes(replace)
        waiting = self._ask(requests)
        refused = self._answered(waiting)
        if waiting:
            return self._rest(waiting, refused)
        if refused:
            raise refused[0]
        return None

    def _requests(self, replace: Iterable[Route], delete: Iterable[Route]) -> list[_Request]:
        return [
            (route, partial(encode, route, self._route_index(route, encode)))
            for encode, routes in ((replace_route, replace), (delete_route, delete))
            for route in routes
        ]

    async def _change(self, requests: Sequence[_Request]) -> list[NetworkError]:
        refused: list[NetworkError] = []
        for start in range(0, len(requests), IN_FLIGHT):
            waiting = self._ask(requests[start : start + IN_FLIGHT])
            refused += self._answered(waiting)
            refused += await self._late(waiting)
        return refused

    async def _rest(self, waiting: _Waiting, refused: list[NetworkError]) -> None:
        async with self._turn:
            refused += await self._late(waiting)
        if refused:
            raise refused[0]

    def _ask(self, requests: Sequence[_Request]) -> _Waiting:
        waiting: _Waiting = {}
        data = bytearray()
        for route, encode in requests:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            data += encode(PROTOCOL, self._sequence)
            waiting[self._sequence] = route, encode.func is delete_route
        if data:
            with _errors("change routes"):
                self._routes.send(data)
        return waiting

    def _answered(self, waiting: _Waiting) -> list[NetworkError]:
        """Take the answers that are there: the kernel works while we send."""
        refused: list[NetworkError] = []
        with _errors("change routes"):
            while waiting:
                try:
                    answer = self._routes.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    break
                refused += self._refusals(waiting, answer)
        return refused

    async def _late(self, waiting: _Waiting) -> list[NetworkError]:
        refused: list[NetworkError] = []
        loop = asyncio.get_running_loop()
        with _errors("change routes"):
            while waiting:
                answer = await loop.sock_recv(self._routes, RECEIVE_BYTES)
                refused += self._refusals(waiting, answer)
        return refused

    def _refusals(self, waiting: _Waiting, answer: bytes) -> list[NetworkError]:
        refused: list[NetworkError] = []
        for sequence, code in parse_acknowledgements(answer):
            # Not ours: left over from a change that was cancelled.
            if (request := waiting.pop(sequence, None)) and code:
                refused += self._refusal(*request, code)
        return refused

    def _refusal(self, route: Route, deleting: bool, code: int) -> list[NetworkError]:
        if deleting and code in _VANISHED:
            return []
        return [NetworkError(f"route {route.prefix}", code)]

    async def apply_routes(self, change: Difference[Route]) -> None:
        """Apply what ``plan.route_difference`` found."""
        await self.change_routes(change.add, change.delete)

    async def routes(self, interface: str, table: int = MAIN_TABLE) -> list[Route]:
        """Return our routes (PROTOCOL) over an interface; the kernel filters."""
        with _errors(f"list routes of {interface}"):
            index = self.index(interface)
            families = (socket.AF_INET, socket.AF_INET6)
            dumps = [await self._dump_routes(family, index, table) for family in families]
        return [_route(interface, message) for dump in dumps for message in dump]

    async def _dump_routes(self, family: int, index: int, table: int) -> list[Any]:
        async def ask() -> AsyncIterator[Any]:
            message = rtmsg()
            message["family"], message["proto"] = family, PROTOCOL
            message["attrs"] = [["RTA_OIF", index], ["RTA_TABLE", table]]
            flags = NLM_F_REQUEST | NLM_F_DUMP
            request = NetlinkRequest(self._netlink, message, msg_type=RTM_GETROUTE, msg_flags=flags)
            await request.send()
            answers: AsyncIterator[Any] = request.response()
            return answers

        try:
            return await self._dump(ask)
        except NetlinkError as error:
            if error.code == errno.ENOENT:  # a table that was never used does not exist
                return []
            raise

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

    def _route_index(self, route: Route, encode: _Encoder) -> int:
        try:
            return self.index(route.interface)
        except NetworkError:
            if encode is not delete_route:
                raise
            return NO_INDEX  # no interface, no route: nothing will be found

    def _address(self, interface: str, address: IPInterface) -> dict[str, Any]:
        return {
            "index": self.index(interface),
            "address": str(address.ip),
            "prefixlen": address.network.prefixlen,
        }


@contextmanager
def _errors(what: str, ignored: Container[int] = ()) -> Iterator[None]:
    try:
        yield
    except NetworkError as error:
        if error.errno not in ignored:
            raise
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno or errno.EIO
        if code not in ignored:
            raise NetworkError(what, code) from error


def _no_forwarding(interface: str, family: int) -> dict[str, Any]:
    # Priority 0 is the lookup of local addresses: those are reached all the same.
    return {
        "family": family,
        "priority": RULE_PRIORITY,
        "iifname": interface,
        "action": "FR_ACT_BLACKHOLE",
        "protocol": PROTOCOL,
    }


def _rule_request(rule: Rule) -> dict[str, Any]:
    request: dict[str, Any] = {
        "family": socket.AF_INET if rule.family == 4 else socket.AF_INET6,
        "priority": rule.priority,
        "table": rule.table,
        "protocol": PROTOCOL,
    }
    if rule.fwmark is not None:
        request |= {"fwmark": rule.fwmark, "fwmask": 0xFFFFFFFF}
    if rule.destination is not None:
        address, length = rule.destination.network_address, rule.destination.prefixlen
        request |= {"dst": str(address), "dst_len": length}
    if rule.udp_source_port is not None:
        port = rule.udp_source_port
        request |= {"ip_proto": socket.IPPROTO_UDP, "sport_range": f"{port}:{port}"}
    return request


def _rule(message: Any) -> Rule:
    destination = message.get_attr("FRA_DST")
    ports = message.get_attr("FRA_SPORT_RANGE")
    return Rule(
        family=4 if message["family"] == socket.AF_INET else 6,
        priority=message.get_attr("FRA_PRIORITY") or 0,
        table=message.get_attr("FRA_TABLE") or message["table"],
        fwmark=message.get_attr("FRA_FWMARK"),
        destination=None
        if destination is None
        else ipaddress.ip_network((destination, message["dst_len"])),
        udp_source_port=None if ports is None else int(ports.partition(":")[0]),
    )


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
