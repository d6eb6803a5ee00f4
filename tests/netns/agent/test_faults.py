"""What an agent meets: unknown EIDs, forged pushes, interfaces that vanish."""

import asyncio
import ipaddress
import os
import signal
import socket
from pathlib import Path

import pytest

from support.agents import AgentHost
from support.eventually import eventually
from support.fleet import Fleet, fleet
from support.flows import exchange
from wgmap import udp
from wgmap.lisp import codec
from wgmap.lisp.messages import LISP_PORT, Eid, Locator, MapNotify, Record

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


async def test_senders_to_unknown_eids_are_told_at_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as bed:
        for source, target in (
            (bed.one.namespace, "10.66.9.9"),
            (bed.one.namespace, "fd66::99"),
            (bed.one.lan, "10.77.9.9"),
            (bed.one.lan, "fd88:9::9"),
        ):
            text = await asyncio.to_thread(
                source.run, "ping", "-n", "-c1", "-W5", target, timeout_s=15, check=False
            )
            assert "nreachable" in text, (target, text)  # ICMP: Host, ICMPv6: Address
            assert "+1 errors" in text


def forged_push(target: str) -> bytes:
    network = ipaddress.ip_network(target)
    locator = Locator(ipaddress.ip_address("192.0.2.66"), 51820, bytes(31) + b"\x09")
    return codec.encode(MapNotify(7, (Record(Eid(network), (locator,), version=9),)))


def receiver_in(agent: AgentHost, address: ipaddress.IPv6Address, port: int) -> socket.socket:
    with agent.namespace.entered():
        return udp.open_socket(address, port)


async def test_a_push_from_the_underlay_is_not_heard(tmp_path: Path) -> None:
    async with fleet(tmp_path, 0, count=1) as bed:
        one, server = bed.one, bed.server
        [peer] = server.peers.values()
        evil = bed.net.bed.namespace("e")
        near, far = bed.net.bed.veth(
            evil, one.namespace, ["2001:db8:e::2/64"], ["2001:db8:e::1/64"], label="e"
        )
        evil.ip("addr", "add", f"{server.address}/128", "dev", "lo", "nodad")
        evil.ip("route", "add", f"{peer.address}/128", "via", "2001:db8:e::1", "dev", near)
        with evil.entered():
            sender = udp.open_socket(server.address, LISP_PORT)
        # Any other socket on that address hears it: the way of the datagram is no obstacle.
        witness = receiver_in(one, peer.address, LISP_PORT + 1)
        with sender, witness:
            for port in (LISP_PORT, LISP_PORT + 1):
                sender.sendto(forged_push("10.66.9.9/32"), (str(peer.address), port))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                assert await loop.sock_recv(witness, 2000) == forged_push("10.66.9.9/32")
        status = one.status()
        assert status["peers"] == []
        assert "push.received" not in status["counters"]
        assert status["counters"]["run.control.refused"] == 0
        assert far in one.namespace.ip("-o", "link")


async def test_a_real_push_is_heard(tmp_path: Path) -> None:
    """Shows that what the test above forges would be taken from a server."""
    async with fleet(tmp_path, 0, count=1) as bed:
        [peer] = bed.server.peers.values()
        push = codec.decode(forged_push("10.66.9.9/32"))
        assert isinstance(push, MapNotify)
        bed.server.push(peer, push.records)
        await eventually(lambda: len(bed.one.status()["peers"]) == 1)


async def contact(bed: Fleet) -> None:
    for target in bed.two.eids:
        assert (await exchange(bed.one.namespace, bed.two.namespace, target, 5)).lost == []


def carrier_of(agent: AgentHost, interface: str) -> int:
    for pid in agent.carriers():
        if interface in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return pid
    raise AssertionError(interface)


@pytest.mark.parametrize("which", ["data", "control", "tun"])
async def test_an_interface_that_vanishes_is_made_anew(tmp_path: Path, which: str) -> None:
    async with fleet(tmp_path, 0) as bed:
        one = bed.one
        await contact(bed)
        if which == "tun":
            one.namespace.ip("link", "del", one.tun)
        else:
            os.kill(carrier_of(one, getattr(one, which)), signal.SIGKILL)
        await eventually(lambda: "beginning anew" in one.log(), deadline_s=10)
        await eventually(one.registered, deadline_s=10)
        await contact(bed)
