"""``wgmap-agent trace``: what each server made of a question."""

import ipaddress

from support.agent_values import SERVERS, make_engine, record
from wgmap.lisp import codec
from wgmap.lisp.mark import TRACED, Mark, Report
from wgmap.lisp.messages import MapNotify, MapReply, MapRequest
from wgmap_agent.engine.traces import MAX_TRACES
from wgmap_agent.engine.types import Action, Send
from wgmap_agent.runner import present

FAR = ipaddress.ip_address("10.66.2.1")


def asked(actions: list[Action]) -> dict[str, MapRequest]:
    found = {}
    for action in actions:
        assert isinstance(action, Send)
        message = codec.decode(action.datagram)
        assert isinstance(message, MapRequest)
        assert message.xtr is not None
        assert Mark.of(message.xtr).since == TRACED
        found[action.server] = message
    return found


def test_every_server_is_asked_and_its_answer_and_report_are_kept_apart() -> None:
    engine = make_engine()
    requests = asked(engine.trace(1.0, FAR))
    assert set(requests) == {one.name for one in SERVERS}
    nonce = requests["ms1"].nonce
    answer = codec.encode(MapReply(nonce, (record(),)))
    stale = codec.encode(MapReply(nonce, (record(authoritative=False),)))
    report = codec.encode(MapNotify(nonce, (), xtr=Report(9, 0.0, 0.004).xtr()))
    assert engine.datagram(1.01, SERVERS[0].control_address, answer) == []
    assert engine.datagram(1.02, SERVERS[1].control_address, stale) == []
    assert engine.datagram(1.02, SERVERS[0].control_address, report) == [], "nothing to acknowledge"
    first, second, third = sorted(engine.traced(FAR), key=lambda one: one.name)
    assert round(first.answered_s or 0, 6) == 0.01
    assert (first.fresh, first.report, first.is_over) == (True, Report(9, 0.0, 0.004), True)
    assert (second.fresh, second.report, second.is_over) == (False, None, False)
    assert third.answered_s is None
    assert not engine.status(1.1).peers, "nothing is installed"


def test_a_report_that_nobody_asked_for_changes_nothing() -> None:
    engine = make_engine()
    report = codec.encode(MapNotify(5, (), xtr=Report(9, 0.0, 0.004).xtr()))
    assert engine.datagram(1.0, SERVERS[0].control_address, report) == []
    assert engine.traced(FAR) == ()


def test_traces_are_bounded() -> None:
    engine = make_engine()
    for number in range(MAX_TRACES + 1):
        engine.trace(1.0, FAR + number)
    assert engine.traced(FAR) == ()
    assert len(engine.traced(FAR + 1)) == len(SERVERS)


def test_a_trace_reads_step_by_step() -> None:
    unknown = dict.fromkeys(("answered_s", "fresh", "index", "pushed_s", "acknowledged_s"))
    told = {"answered_s": 0.003, "fresh": True, "index": 41, "pushed_s": 0.0}
    text = present.trace(
        {
            "eid": "10.66.2.1",
            "steps": [{"step": "overlay", "ok": True, "detail": "in 10.66.0.0/16"}],
            "servers": [
                {"name": "ms1", **told, "acknowledged_s": 0.002},
                {"name": "ms2", **told, "acknowledged_s": None},
                {"name": "ms3", **told, "pushed_s": None, "acknowledged_s": None},
                {"name": "ms4", **unknown, "answered_s": 0.003, "fresh": False},
                {"name": "ms5", **unknown},
            ],
            "contact": [{"step": "captured", "at": 1.0}, {"step": "stands", "at": 1.012}],
        }
    )
    answered = "answered after 3.00 ms (fresh), log index 41, told the other side after 0.00 ms"
    assert f"server ms1: {answered}, acknowledged after 2.00 ms\n" in text
    assert f"server ms2: {answered}, no acknowledgement\n" in text
    assert "server ms3: answered after 3.00 ms (fresh), log index 41, nobody to tell\n" in text
    assert "server ms4: answered after 3.00 ms (not fresh), did not report\n" in text
    assert "server ms5: no answer\n" in text
    assert text.endswith("last first contact: captured 0.00 ms, stands 12.00 ms")
