"""A machine with a founded cluster, and short ways to give it commands."""

import ipaddress

from wgmap.addresses import control_address, prefix_to_bytes
from wgmap_cluster.fsm.commands import (
    Bootstrap,
    Command,
    Enrol,
    Offer,
    Origin,
    Register,
    encode,
)
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied, Done, Reason, Refused, Registered
from wgmap_cluster.fsm.rows import LocatorRow, ServerRow

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
ORIGIN = Origin("ms1", "root", "2026-11-22T18:00:00Z")


def prefix(text: str) -> bytes:
    return prefix_to_bytes(ipaddress.ip_network(text))


def key(number: int) -> bytes:
    return bytes([number]) * 32


def address_of(control_key: bytes) -> bytes:
    return control_address(CONTROL, control_key).packed


def server(number: int) -> ServerRow:
    return ServerRow(
        mesh_key=key(200 + number),
        control_key=key(220 + number),
        underlay=ipaddress.ip_address(f"192.0.2.{number}").packed,
        control_port=51822,
        mesh_port=51821,
        mesh_address=ipaddress.ip_address(f"fd77:6d65::{number}").packed,
        control_address=ipaddress.ip_address(f"fd77:676d:6170::{number}").packed,
    )


def bootstrap(servers: int = 3) -> Bootstrap:
    return Bootstrap(
        cluster_id=b"c" * 16,
        control_prefix=prefix(str(CONTROL)),
        overlay=(prefix("10.66.0.0/16"), prefix("fd66::/64")),
        servers=tuple((f"ms{n}", server(n)) for n in range(1, servers + 1)),
        origin=ORIGIN,
    )


def enrol(name: str, number: int, *prefixes: str, instance: int = 0) -> Enrol:
    return Enrol(
        name=name,
        instance=instance,
        prefixes=tuple(prefix(each) for each in prefixes),
        origin=ORIGIN,
        control_key=key(number),
    )


def locator(address: str = "192.0.2.11", port: int = 51820) -> LocatorRow:
    return LocatorRow(ipaddress.ip_address(address).packed, port, 1, 100)


def register(
    number: int, nonce: int, *prefixes: str, data: int = 99, ttl: int = 60, at: str = "192.0.2.11"
) -> Register:
    return Register(
        control_address=address_of(key(number)),
        nonce=nonce,
        instance=0,
        key=key(data),
        offers=tuple(Offer(prefix(each), (locator(at),), ttl) for each in prefixes),
    )


class Driver:
    """Applies commands to a machine, one index after another."""

    def __init__(self, *, founded: bool = True) -> None:
        self.machine = Machine()
        self.log: list[bytes] = []
        if founded:
            self.done(bootstrap())

    def apply(self, command: Command) -> Applied:
        return self.apply_bytes(encode(command))

    def apply_bytes(self, data: bytes) -> Applied:
        self.log.append(data)
        return self.machine.apply(len(self.log), data)

    def done(self, command: Command) -> Done:
        result = self.apply(command).result
        assert isinstance(result, Done), result
        return result

    def registered(self, command: Command) -> Registered:
        result = self.apply(command).result
        assert isinstance(result, Registered), result
        return result

    def refused(self, command: Command) -> Reason:
        applied = self.apply(command)
        assert isinstance(applied.result, Refused), applied.result
        assert applied.changes == ()
        return applied.result.reason
