"""How long until the other side has heard who asked for it: who is timed, from when, who is not."""

from dataclasses import replace

from support.tables import (
    SETTINGS,
    Network,
    enrolled,
    mapped,
    notifies,
    revocation,
    sent,
    told,
)
from wgmap.lisp.codec import acknowledgement, encode
from wgmap.lisp.messages import MapNotify, MapNotifyAck
from wgmap.metrics.families import unflat
from wgmap_cluster.feed import ResponderNote
from wgmap_cluster.responder import announcer

THREE = (
    enrolled("a1"),
    enrolled("a2"),
    enrolled("a3"),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
    mapped("a3", "10.66.3.1/32"),
)
GIVEN_UP_S = 10.0  # by then no introduction is out any more


def noted(network: Network) -> dict[str, int]:
    """Return what the responder tells its replica next."""
    messages = [tell.message for tell in told(network.tick(1.0))]
    notes = [message for message in messages if isinstance(message, ResponderNote)]
    return notes[-1].counters


def measured(network: Network) -> tuple[int, float]:
    """Return how many introductions were timed, and their seconds together."""
    family = unflat("seconds", "", "introduction", noted(network))
    values = {sample.name: sample.value for sample in family.samples if "le" not in sample.labels}
    return int(values["seconds_count"]), round(values["seconds_sum"], 6)


def acknowledge(network: Network, push: MapNotify, name: str = "a2") -> None:
    network.send(name, encode(MapNotifyAck(push.nonce, push.records)))


def test_it_is_timed_from_the_answer_to_the_other_sides_acknowledgement() -> None:
    network = Network(*THREE)
    actions = network.ask("a1", "10.66.2.1/32")
    network.now += 0.042
    network.acknowledge(actions)
    assert measured(network) == (1, 0.042)


def test_an_acknowledgement_as_agents_send_it_counts_as_well() -> None:
    network = Network(*THREE)
    push, _ = sent(network.ask("a1", "10.66.2.1/32"))
    network.now += 0.021
    network.send("a2", acknowledgement(push.datagram))
    network.send("a2", acknowledgement(push.datagram))
    assert measured(network) == (1, 0.021)


def test_every_question_is_timed() -> None:
    network = Network(*THREE)
    for asking, asked in (("a1", "10.66.2.1/32"), ("a1", "10.66.2.1/32"), ("a2", "10.66.1.1/32")):
        actions = network.ask(asking, asked)
        network.now += 0.01
        network.acknowledge(actions)
    assert measured(network) == (3, 0.03)


def test_a_refresh_is_timed_from_its_answer() -> None:
    network = Network(*THREE)
    network.ask("a1", "10.66.2.1/32", refresh=True)
    actions = network.barrier(1, later=0.2)
    network.now += 0.01
    network.acknowledge(actions)
    assert measured(network) == (1, 0.01)


def test_a_push_that_is_repeated_is_timed_from_the_question() -> None:
    network = Network(*THREE)
    ((_, push),) = notifies(network.ask("a1", "10.66.2.1/32"))
    start = network.now
    assert len(notifies(network.tick(1.0))) > 1
    acknowledge(network, push)
    assert measured(network) == (1, round(network.now - 1.0 - start, 6))


def test_who_asks_again_meanwhile_still_waits_since_the_first_question() -> None:
    network = Network(*THREE)
    ((_, first),) = notifies(network.ask("a1", "10.66.2.1/32"))
    network.now += 0.3
    ((_, second),) = notifies(network.ask("a1", "10.66.2.1/32"))
    network.now += 0.1
    acknowledge(network, first)
    acknowledge(network, second)
    assert measured(network) == (1, 0.4)


def test_a_change_that_takes_the_place_of_the_introduction_is_waited_for() -> None:
    network = Network(*THREE)
    network.ask("a1", "10.66.2.1/32")
    network.now += 0.3
    moved = network.change(mapped("a1", "10.66.1.1/32", version=2, rloc="192.0.2.99"))
    network.now += 0.1
    network.acknowledge(moved)
    assert measured(network) == (1, 0.4)


def test_one_that_is_never_acknowledged_counts_as_unheard_and_not_as_a_time() -> None:
    network = Network(*THREE)
    ((_, push),) = notifies(network.ask("a1", "10.66.2.1/32"))
    network.tick(GIVEN_UP_S)
    acknowledge(network, push)
    assert noted(network)["introduction.unheard"] == 1
    assert measured(network) == (0, 0.0)
    network.now += 60.0
    network.acknowledge(network.change(mapped("a2", "10.66.2.1/32", rloc="192.0.2.99")))
    assert measured(network) == (0, 0.0), "nobody asked: it is a change"


def test_a_change_that_is_never_acknowledged_is_not_counted_here() -> None:
    network = Network(*THREE)
    network.acknowledge(network.ask("a1", "10.66.2.1/32"))
    network.change(mapped("a2", "10.66.2.1/32", version=2, rloc="192.0.2.99"))
    network.tick(60.0)
    values = noted(network)
    assert values["push.given_up"] == 1
    assert "introduction.unheard" not in values


def test_the_acknowledgement_of_somebody_else_does_not_end_it() -> None:
    network = Network(*THREE)
    ((_, push),) = notifies(network.ask("a1", "10.66.2.1/32"))
    acknowledge(network, push, "a3")
    assert measured(network) == (0, 0.0)
    acknowledge(network, push)
    assert measured(network)[0] == 1


def test_a_peer_that_is_revoked_meanwhile_counts_as_neither() -> None:
    network = Network(*THREE)
    ((_, push),) = notifies(network.ask("a1", "10.66.2.1/32"))
    network.change(enrolled("a2", revoked=True), revocation(1, "a2", "10.66.2.1/32"))
    acknowledge(network, push)
    network.tick(GIVEN_UP_S)
    assert measured(network) == (0, 0.0)
    assert "introduction.unheard" not in noted(network)


def test_one_that_could_not_be_told_is_neither() -> None:
    limited = replace(SETTINGS, pushes=replace(SETTINGS.pushes, to_each=(1.0, 1)))
    network = Network(*THREE, settings=limited)
    network.acknowledge(network.ask("a1", "10.66.2.1/32"))
    assert not notifies(network.ask("a3", "10.66.2.1/32"))
    values = noted(network)
    assert values["push.limited_destination"] == 1
    assert "introduction.unheard" not in values
    assert measured(network)[0] == 1


def test_a_full_table_tells_nobody_and_times_nobody() -> None:
    most = announcer.MAX_OUT * 3 // 4
    eids = {f"a{number}": f"10.66.{number >> 8}.{number & 255}/32" for number in range(4, most + 5)}
    rows = [(enrolled(name), mapped(name, eid, rloc="192.0.2.7")) for name, eid in eids.items()]
    unlimited = replace(SETTINGS.pushes, from_each=(1e9, 1 << 30))
    network = Network(
        *(enrolled("a1"), mapped("a1", "10.66.255.1/32")),
        *(row for pair in rows for row in pair),
        settings=replace(SETTINGS, pushes=unlimited, requests=None),
    )
    pushed = {name: notifies(network.ask("a1", eid)) for name, eid in eids.items()}
    assert [len(each) for each in pushed.values()] == [1] * most + [0]
    network.now += 0.02
    for name, pushes in pushed.items():
        for _, push in pushes:
            acknowledge(network, push, name)
    assert measured(network) == (most, round(0.02 * most, 6))
    assert noted(network)["push.table_full"] == 1
