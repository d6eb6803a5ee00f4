"""Plain LISP clients at a real server: an Open Overlay Router xTR as ``support.xtr`` plays it."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.supervised import Server
from support.xtr import Xtr, locator
from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import Eid, Locator, LocatorForm, MapNotify, MapRegister, Record
from wgmap_cluster.cli.main import main as wgmap

SECRET = b"correct horse"
SITE1, SITE2, AGENT = map(ipaddress.ip_network, ("10.70.1.0/24", "10.70.2.0/24", "10.66.9.9/32"))


def at(number: int) -> IPAddress:
    return ipaddress.ip_address(f"127.0.0.{number}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, replica="wgmap_cluster.replica")
    try:
        server.ready()
        yield server
    finally:
        server.close()


def enrol(server: Server, name: str, prefix: object, address: IPAddress, *more: str) -> None:
    socket = str(server.config.parent / "admin.sock")
    command = ("peer", "add", name, "--prefix", str(prefix), "--control-address", str(address))
    assert wgmap(["--socket", socket, *command, *more]) == 0


def xtr(server: Server, number: int, prefix: IPNetwork, *, sha: str = "sha1") -> Xtr:
    enrol(
        *(server, f"site{number}", prefix, at(number)),
        *("--lisp-key", SECRET.decode(), "--lisp-auth", sha),
        *("--endpoint-allow", "192.0.2.0/24", "--endpoint-allow", "2001:db8::/32"),
    )
    return Xtr(at(number), prefix, SECRET, server.address)


def test_two_sites_find_each_other_and_follow_a_move(server: Server) -> None:
    with xtr(server, 41, SITE1) as one, xtr(server, 42, SITE2) as two:
        assert one.register()
        assert two.register()
        found = one.look_up(SITE2[7])
        assert found is not None
        assert (found.eid.prefix, found.authoritative) == (SITE2, True)
        assert [each.address for each in found.locators] == [at(42)]
        assert found.ttl_min == 60, "it registered 1440 minutes, and would mis-time them"

        away = ipaddress.ip_address("192.0.2.42")
        assert two.register(locator(away))
        assert one.until_solicited()
        moved = one.look_up(SITE2[7])
        assert moved is not None
        assert [each.address for each in moved.locators] == [away]
        assert one.solicited == 1


def test_it_repeats_its_register_with_another_nonce_each_time(server: Server) -> None:
    """An agent's nonces order its registers; those of such a client order nothing."""
    with xtr(server, 41, SITE1) as one, xtr(server, 42, SITE2) as two:
        away = ipaddress.ip_address("192.0.2.41")
        for _ in range(5):
            assert one.register(locator(away))
            assert one.register()
        assert two.register()
        found = two.look_up(SITE1[1])
        assert found is not None
        assert [each.address for each in found.locators] == [at(41)]


def test_locators_come_whole_and_in_their_order(server: Server) -> None:
    """Multihoming: priorities and weights, both families."""
    with xtr(server, 41, SITE1) as one, xtr(server, 42, SITE2) as two:
        wanted = (
            locator(ipaddress.ip_address("192.0.2.9"), 2, 30),
            locator(ipaddress.ip_address("2001:db8::9"), 1, 100),
            locator(at(41), 2, 70),
        )
        assert one.register(*wanted)
        assert two.register()
        found = two.look_up(SITE1[1])
        assert found is not None
        values = [(each.address, each.priority, each.weight) for each in found.locators]
        assert values == [(each.address, each.priority, each.weight) for each in wanted]


def test_it_never_sees_the_key_of_an_agent(server: Server) -> None:
    """A locator with a key would be its end; the agent is told of it all the same."""
    enrol(server, "agent", AGENT, at(49))
    with xtr(server, 41, SITE1) as one, Xtr(at(49), AGENT, SECRET, server.address) as agent:
        assert one.register()
        record = Record(Eid(AGENT), (Locator(at(49), 51820, b"k" * 32),), 1440)
        agent._send(encode(MapRegister(7, (record,))))
        notified = decode(agent._socket.recv(65535))
        assert isinstance(notified, MapNotify)
        found = one.look_up(AGENT[0])
        assert found is not None
        assert [(each.address, each.form) for each in found.locators] == [
            (at(49), LocatorForm.PLAIN)
        ]
        told = decode(agent._socket.recv(65535))
        assert isinstance(told, MapNotify)
        assert [each.eid.prefix for each in told.records] == [SITE1]


@pytest.mark.parametrize("wrong", ["secret", "algorithm", "prefix"])
def test_who_does_not_prove_himself_is_not_answered(server: Server, wrong: str) -> None:
    sha = "sha256" if wrong == "algorithm" else "sha1"
    with xtr(server, 41, SITE1, sha=sha) as one, xtr(server, 42, SITE2) as two:
        if wrong == "secret":
            one.secret = b"another"
        if wrong == "prefix":
            one.eid = ipaddress.ip_network("10.70.3.0/24")
        assert not one.register(wait_s=1.5)
        assert two.register(), "the server answers who does"
        found = two.look_up(SITE1[1])
        assert found is not None
        assert found.locators == ()


def test_what_is_unknown_is_answered_and_not_for_long(server: Server) -> None:
    with xtr(server, 41, SITE1) as one:
        assert one.register()
        found = one.look_up(ipaddress.ip_address("10.70.200.1"))
        assert found is not None
        assert (found.locators, found.ttl_min <= 15) == ((), True)
