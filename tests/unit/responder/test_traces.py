"""A traced question: who asked is told what became of it, and of no other one."""

import ipaddress

import pytest

from support.tables import Network, control, enrolled, mapped, notifies, replies
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.mark import TRACED, UNKNOWN, Mark, Report
from wgmap.lisp.messages import Eid, MapNotify, MapNotifyAck, MapRequest, RequestRecord
from wgmap_cluster.responder import quick
from wgmap_cluster.responder.actions import Action
from wgmap_cluster.responder.traces import MAX_TRACES, PATIENCE_S

ROWS = (
    enrolled("a1"),
    enrolled("a2"),
    enrolled("a3", plain=True),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
    mapped("a3", "10.66.3.1/32", plain=True),
)


def question(eid: str = "10.66.2.1", nonce: int = 7, since: int = TRACED) -> bytes:
    records = (RequestRecord(Eid(ipaddress.ip_network(eid))),)
    rloc = ipaddress.ip_address(control("a1"))
    return encode(MapRequest(nonce, (rloc,), records, xtr=Mark(UNKNOWN, 0, since).xtr()))


def reports(actions: list[Action]) -> list[tuple[str, int, Report]]:
    """Return whom which question is reported to."""
    found = []
    for to, notify in notifies(actions):
        report = None if notify.xtr is None else Report.of(notify.xtr)
        if report is not None:
            assert not notify.records
            found.append((to, notify.nonce, report))
    return found


def push(actions: list[Action], name: str) -> MapNotify:
    (found,) = [notify for to, notify in notifies(actions) if to == control(name)]
    return found


def acknowledge(network: Network, name: str, notify: MapNotify) -> list[Action]:
    return network.send(name, encode(MapNotifyAck(notify.nonce, notify.records)))


def test_the_report_comes_with_the_acknowledgement_of_the_other_side() -> None:
    network = Network(*ROWS)
    actions = network.send("a1", question())
    assert len(replies(actions)) == 1
    assert reports(actions) == []
    network.now += 0.005
    told = acknowledge(network, "a2", push(actions, "a2"))
    assert reports(told) == [(control("a1"), 7, Report(network.service.index, 0.0, 0.005))]
    assert reports(network.tick(5)) == [], "once"


def test_a_push_that_nobody_acknowledges_is_reported_in_the_end() -> None:
    network = Network(*ROWS)
    actions = network.send("a1", question())
    pushed = push(actions, "a2")
    assert reports(acknowledge(network, "a3", pushed)) == [], "it was not pushed to a3"
    late = reports(network.tick(PATIENCE_S + 0.01))
    assert late == [(control("a1"), 7, Report(network.service.index, 0.0, None))]
    assert reports(acknowledge(network, "a2", pushed)) == []


@pytest.mark.parametrize("eid", ["10.66.9.9", "10.66.1.1"], ids=["unknown", "own"])
def test_where_nobody_is_pushed_to_the_report_comes_at_once(eid: str) -> None:
    network = Network(*ROWS)
    actions = network.send("a1", question(eid))
    index = network.service.index
    assert reports(actions) == [(control("a1"), 7, Report(index, None, None))]


def test_other_questions_and_plain_clients_get_no_report() -> None:
    network = Network(*ROWS)
    for name, datagram in (("a1", question(since=0)), ("a3", question())):
        actions = network.send(name, datagram)
        assert len(replies(actions)) == 1
        assert reports(actions + network.tick(PATIENCE_S + 1)) == []


def test_a_traced_question_says_what_is_known_of_revocations_as_any_other() -> None:
    network = Network(*ROWS)
    plain = network.send("a1", question(nonce=8, since=0))
    network.acknowledge(plain)
    traced = Network(*ROWS).send("a1", question())
    assert len(notifies(traced)) == len(notifies(plain))


def test_traces_are_bounded_and_the_last_ones_reported_at_once() -> None:
    network = Network(*ROWS)
    for nonce in range(MAX_TRACES):
        assert reports(network.send("a1", question(nonce=nonce))) == []
    (one,) = reports(network.send("a1", question(nonce=1000)))
    assert one[1:] == (1000, Report(network.service.index, 0.0, None))
    assert len(reports(network.tick(PATIENCE_S + 0.1))) == MAX_TRACES


def test_only_a_traced_request_is_left_to_the_codec() -> None:
    assert quick.parse(question(since=0)) is not None
    assert quick.parse(question()) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.5, 4294.0])
def test_a_report_reads_as_it_was_written(seconds: float) -> None:
    for report in (Report(1 << 40, seconds, None), Report(3, 0.0, seconds)):
        message = decode(encode(MapNotify(1, (), xtr=report.xtr())))
        assert isinstance(message, MapNotify)
        assert message.xtr is not None
        assert Report.of(message.xtr) == report
    assert Report.of(Mark(UNKNOWN, 3, 4).xtr()) is None
