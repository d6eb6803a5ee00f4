"""Who was told of whom, as a responder tells its replica."""

from support.tables import Network, enrolled, mapped, replies, request, server, told
from wgmap_cluster.feed import Contact, Known, WhoKnows
from wgmap_cluster.fsm.rows import MappingRow
from wgmap_cluster.responder import subscriptions
from wgmap_cluster.responder.announcer import INTRODUCTION_ATTEMPTS
from wgmap_cluster.responder.contacts import MOST

THREE = (
    *(enrolled("a1"), enrolled("a2"), enrolled("a3")),
    *(mapped("a1", "10.66.1.1/32"), mapped("a2", "10.66.2.1/32"), mapped("a3", "10.66.3.1/32")),
)


def known(network: Network, peer: str = "", other: str = "", most: int = 100) -> list[Contact]:
    (tell,) = told(network.service.feed(WhoKnows(5, peer, other, most), network.now))
    assert isinstance(tell.message, Known)
    assert tell.message.number == 5
    return list(tell.message.contacts)


def states(contacts: list[Contact]) -> dict[tuple[str, str], str]:
    return {(one.agent, one.subject): one.state for one in contacts}


def test_who_asked_was_told_and_the_other_one_is_once_it_says_so() -> None:
    network = Network(*THREE)
    pushed = network.ask("a1", "10.66.2.1/32")
    assert states(known(network)) == {("a1", "a2"): "heard", ("a2", "a1"): "waiting"}
    network.acknowledge(pushed)
    network.now += 3
    assert states(known(network)) == {("a1", "a2"): "heard", ("a2", "a1"): "heard"}
    assert {one.at for one in known(network)} == {network.now - 3}


def test_who_never_acknowledged_did_not_hear_until_it_asks_itself() -> None:
    network = Network(*THREE)
    network.ask("a1", "10.66.2.1/32")
    network.tick(60.0 * INTRODUCTION_ATTEMPTS)
    assert states(known(network, "a2", "a1"))["a2", "a1"] == "unheard"
    network.ask("a2", "10.66.1.1/32")
    assert states(known(network, "a2", "a1"))["a2", "a1"] == "heard"


def test_those_of_a_peer_and_those_of_two() -> None:
    network = Network(*THREE)
    for asker, eid in (("a1", "10.66.2.1/32"), ("a3", "10.66.2.1/32")):
        network.now += 1
        network.ask(asker, eid)
    assert list(states(known(network, "a2"))) == [
        *(("a3", "a2"), ("a2", "a3"), ("a1", "a2"), ("a2", "a1")),
    ]
    assert set(states(known(network, "a1"))) == {("a1", "a2"), ("a2", "a1")}
    assert set(states(known(network, "a3", "a2"))) == {("a3", "a2"), ("a2", "a3")}
    assert known(network, "a3", "a1") == []
    assert known(network, "nobody") == []
    assert len(known(network, most=1)) == 1


def test_what_is_over_is_not_told() -> None:
    network = Network(*THREE)
    network.acknowledge(network.ask("a1", "10.66.2.1/32"))
    network.now += 60 * 60 + 1  # the TTL is an hour
    assert known(network) == known(network, "a1") == known(network, "a1", "a2") == []


def test_the_server_set_is_no_contact() -> None:
    network = Network(*THREE, server("ms1"))
    assert replies(network.ask("a1", "fd77:676d:6170::/64"))
    assert known(network) == []


def test_a_renamed_peer_keeps_its_contacts() -> None:
    network = Network(*THREE)
    network.acknowledge(network.ask("a1", "10.66.2.1/32"))
    change = mapped("a1", "10.66.1.1/32")
    assert isinstance(change.row, MappingRow)
    renamed = change._replace(row=change.row._replace(peer="b1"))
    network.change(enrolled("a1")._replace(key="b1"), renamed)
    assert set(states(known(network, "b1"))) == {("b1", "a2"), ("a2", "b1")}


def test_an_answer_is_bounded_whoever_asks() -> None:
    count = subscriptions.RECENT
    peers = [f"a{n}" for n in range(10, 10 + count)]
    rows = [
        row
        for name in peers
        for row in (enrolled(name), mapped(name, _own(name), rloc="192.0.2.1"))
    ]
    network = Network(*THREE, *rows)
    for name in peers:
        network.now += 0.01
        network.send(name, request("10.66.2.1/32"))
    for contacts in (known(network, most=1 << 31), known(network, "a2", most=1 << 31)):
        assert len(contacts) == MOST
        assert contacts[0].at == network.now
    assert set(states(known(network, peers[0]))) == {(peers[0], "a2"), ("a2", peers[0])}


def _own(name: str) -> str:
    number = int(name[1:])
    return f"10.66.{100 + number // 250}.{number % 250}/32"
