"""Each judge passes what is good, notices what is broken, and says when there was nothing."""

from pathlib import Path
from typing import Any

import pytest

from wgmap.errors import ConfigError
from wgmap_chaos.history import file
from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import (
    Call,
    Fault,
    Final,
    Flow,
    Op,
    Outcome,
    Record,
    Run,
    Said,
    Sample,
    Settled,
    Vanished,
)
from wgmap_chaos.judges import (
    all as judges,
)
from wgmap_chaos.judges import (
    convergence,
    dataflow,
    durability,
    health,
    mapping,
    pushes,
    revocation,
    staleness,
)

RUN = Run(
    command="make chaos",
    commit="",
    seed=1,
    servers=3,
    agents=2,
    lights=2,
    minutes=1,
    begun=0,
    staleness_s=1,
    converge_s=30,
    push_s=2,
    data_grace_s=5,
    grown_mb=50,
    grown_fds=20,
)
EID = "10.66.200.1/32"


def told(*records: Record) -> History:
    history = History()
    for record in (RUN, *records):
        history.add(record)
    return history


def register(value: int, begun: float, took: float | None = 0.1, result: int = 0) -> Call:
    ended = None if took is None else begun + took
    outcome = Outcome.UNKNOWN if took is None else Outcome.OK
    return Call(
        who="l1", op=Op.REGISTER, key=EID, value=value, begun=begun, ended=ended,
        outcome=outcome, result=(result or value) if took else None, server="ms1",
    )  # fmt: skip


def shown(number: int, begun: float, op: Op = Op.LOOKUP, **more: Any) -> Call:
    given: dict[str, Any] = {"authoritative": True, "server": "ms2", **more}
    return Call(
        who="l2", op=op, key=EID, result=number, begun=begun, ended=begun + 0.1,
        outcome=Outcome.OK, **given,
    )  # fmt: skip


def operated(op: Op, name: str, begun: float, outcome: Outcome = Outcome.OK) -> Call:
    return Call(who="o", op=op, key=name, begun=begun, ended=begun + 0.5, outcome=outcome)


def final(server: str, number: int, *, revoked: bool = False, digest: str = "d") -> Final:
    peers = {"l1": revoked, "l2": False}
    return Final(server=server, index=9, digest=digest, peers=peers, numbers={EID: number})


def fault(name: str, begun: float, *, data: bool = False, roles: tuple[str, ...] = ()) -> Fault:
    return Fault(
        name=name, targets=("ms1",), roles=roles, data=data, begun=begun,
        effective=begun + 1, healing=begun + 2, healed=begun + 3,
    )  # fmt: skip


# ------------------------------------------------------------------------------ linearizability


def test_registers_in_the_order_of_their_numbers() -> None:
    history = told(
        register(2, 1.0), register(1, 2.0, result=2), shown(2, 3.0, Op.REFRESH),
        register(4, 4.0, None), shown(2, 5.0, Op.REFRESH), shown(4, 6.0, Op.REFRESH),
        operated(Op.REVOKE, "l1", 7.0), shown(0, 8.0, Op.REFRESH),
    )  # fmt: skip
    assert mapping.judge(history).held


@pytest.mark.parametrize(
    "wrong",
    [
        (register(2, 1.0), register(1, 2.0)),  # an older one took effect
        (register(2, 1.0), register(1, 2.0), shown(1, 3.0, Op.REFRESH)),
        (register(1, 1.0), shown(0, 2.0, Op.REFRESH)),
        (shown(1, 1.0, Op.REFRESH), register(1, 2.0)),
        (register(1, 1.0, None), shown(1, 2.0, Op.REFRESH), shown(0, 3.0, Op.REFRESH)),
        (operated(Op.REVOKE, "l1", 1.0), register(1, 2.0)),
        (register(1, 0.5), operated(Op.REVOKE, "l1", 1.0), shown(1, 2.0, Op.REFRESH)),
    ],
)
def test_what_no_order_explains(wrong: tuple[Call, ...]) -> None:
    verdict = mapping.judge(told(*wrong))
    assert verdict.word == "BROKEN"
    assert EID in verdict.broken[0]


def test_a_register_that_was_sent_twice_may_be_answered_with_a_later_one() -> None:
    """Its first copy was seen by a refresh, its second came when the later one was in force."""
    first, later = register(1, 0.0, took=3.0, result=2), register(2, 1.5, took=1.0)
    seen = shown(1, 1.0, Op.REFRESH)
    assert mapping.judge(told(first, seen, later)).held
    assert not mapping.judge(told(first, seen)).held  # nobody registered what it is answered with


def test_nothing_was_tested_where_nothing_was_done() -> None:
    assert [one.word for one in judges.judge(told())] == ["not tested"] * len(judges.JUDGES)


# ----------------------------------------------------------------------------------- durability


def test_all_that_was_acknowledged_is_there() -> None:
    history = told(
        operated(Op.ENROL, "l1", 0.1), register(1, 1.0), register(2, 2.0, None),
        operated(Op.ENROL, "lost", 3.0, Outcome.UNKNOWN), final("ms1", 2), final("ms2", 1),
    )  # fmt: skip
    assert durability.judge(history).held


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (register(7, 1.0), "has 2, and 7 was acknowledged"),
        (operated(Op.ENROL, "l9", 1.0), "l9, enrolled at 1.500, is not there"),
        (operated(Op.REVOKE, "l2", 1.0), "l2, revoked at 1.500, is not revoked"),
    ],
)
def test_what_was_acknowledged_and_is_missing(call: Call, text: str) -> None:
    verdict = durability.judge(told(register(2, 0.1), call, final("ms3", 2)))
    assert len(verdict.broken) == 1
    assert text in verdict.broken[0]


def test_what_nobody_registered() -> None:
    (text,) = durability.judge(told(register(2, 0.1), final("ms3", 3))).broken
    assert "3, which nobody registered" in text


# ----------------------------------------------------------------------------------- revocation


def test_a_revoked_key_may_be_shown_without_authority() -> None:
    history = told(
        register(1, 0.0), operated(Op.REVOKE, "l1", 1.0), shown(1, 1.2),
        shown(1, 2.0, authoritative=False), shown(0, 2.0),
    )  # fmt: skip
    assert revocation.judge(history).held


def test_a_revoked_key_with_authority_and_a_register_of_its_peer() -> None:
    history = told(register(1, 0.0), operated(Op.REVOKE, "l1", 1.0), shown(1, 1.6))
    history.add(register(2, 1.7))
    served = revocation.judge(history).broken
    assert len(served) == 2
    assert "took a register of l1" in served[0]
    assert "0.100 s after its revocation" in served[1]


# ------------------------------------------------------------------------------------ staleness


def test_an_answer_within_the_bound() -> None:
    assert staleness.judge(told(register(1, 0.0), register(2, 2.0), shown(1, 3.0))).held
    old = told(register(1, 0.0), register(2, 2.0), shown(1, 3.2, authoritative=False))
    assert not staleness.judge(old).broken


def test_an_answer_beyond_the_bound_and_a_stale_refresh() -> None:
    history = told(register(1, 0.0), register(2, 2.0), shown(1, 3.2), shown(1, 2.2, Op.REFRESH))
    assert len(staleness.judge(history).broken) == 2


def test_what_is_said_after_a_revocation_is_another_judges() -> None:
    history = told(register(1, 0.0), shown(1, 0.5), operated(Op.REVOKE, "l1", 1.0), shown(0, 9.0))
    assert staleness.judge(history).held


# -------------------------------------------------------------------------------------- pushes


def pushed(number: int, at: float) -> Call:
    return Call(
        who="l2", op=Op.PUSHED, key=EID, result=number, begun=at, ended=at, outcome=Outcome.OK
    )


def test_who_asked_is_told_in_time_or_of_more() -> None:
    history = told(register(1, 0.0), shown(1, 1.0), register(2, 2.0), pushed(2, 3.0))
    assert pushes.judge(history).held
    later = told(register(1, 0.0), shown(1, 1.0), register(2, 2.0), register(3, 2.5))
    later.add(pushed(3, 3.0))
    assert pushes.judge(later).looked_at == 2
    assert pushes.judge(later).held


@pytest.mark.parametrize("heard", [(), (pushed(1, 3.0),), (pushed(2, 4.2),)])
def test_who_is_not_told_in_time(heard: tuple[Call, ...]) -> None:
    history = told(register(1, 0.0), shown(1, 1.0), register(2, 2.0), *heard)
    assert "l2 asked" in pushes.judge(history).broken[0]


def test_who_was_revoked_meanwhile_is_told_nothing() -> None:
    asked = (register(1, 0.0), shown(1, 1.0), register(2, 2.0))
    assert pushes.judge(told(*asked, operated(Op.REVOKE, "l2", 2.5))).word == "not tested"
    assert not pushes.judge(told(*asked, operated(Op.REVOKE, "l2", 4.5))).held


def test_pushes_are_judged_in_the_calm_only() -> None:
    history = told(register(1, 0.0), shown(1, 1.0), register(2, 9.0), fault("kill", 4.0))
    assert pushes.judge(history).word == "not tested"


# ----------------------------------------------------------------------------------- data flows


def flow(*lost: float) -> Flow:
    ends: dict[str, Any] = {"source": "a1", "target": "a2", "begun": 0.0, "ended": 60.0}
    return Flow(name="a1>a2", interval_s=0.05, sent=1200, lost=lost, **ends)


def test_losses_in_a_fault_of_the_data_plane_are_excused() -> None:
    verdict = dataflow.judge(
        told(flow(19.6, 20.0, 27.9), fault("moved", 20.0, data=True), fault("kill", 40.0))
    )
    assert verdict.held
    assert verdict.looked_at == 60


@pytest.mark.parametrize(
    ("at", "what"),
    [(41.0, "kill"), (50.0, "no fault at all"), (28.1, "no"), (19.4, "no fault at all")],
)
def test_a_loss_that_nothing_excuses(at: float, what: str) -> None:
    history = told(flow(at), fault("moved", 20.0, data=True), fault("kill", 40.0))
    (text,) = dataflow.judge(history).broken
    assert what in text


def rotated(who: str, begun: float, ended: float | None) -> Call:
    outcome = Outcome.UNKNOWN if ended is None else Outcome.OK
    return Call(who="o", op=Op.ROTATE, key=who, begun=begun, ended=ended, outcome=outcome)


@pytest.mark.parametrize("who", ["a1", "a2"])
def test_a_moment_of_silence_while_the_key_of_one_end_rotates(who: str) -> None:
    lost = tuple(41.0 + number / 20 for number in range(9))
    history = told(flow(*lost), rotated(who, 40.9, 42.0), fault("kill", 50.0))
    assert dataflow.judge(history).held
    history.calls[0] = rotated(who, 40.9, None)  # nobody knows when it was over
    assert dataflow.judge(history).held


@pytest.mark.parametrize(
    ("turn", "packets"),
    [(rotated("a1", 40.9, 42.0), 12), (rotated("a3", 40.9, 42.0), 3), (rotated("a1", 30, 40), 3)],
    ids=["for too long", "of somebody else", "over before"],
)
def test_a_silence_that_no_rotation_excuses(turn: Call, packets: int) -> None:
    lost = tuple(41.0 + number / 20 for number in range(packets))
    (text,) = dataflow.judge(told(flow(*lost), turn, fault("kill", 50.0))).broken
    assert f"{packets} lost" in text


def test_a_rotation_that_was_refused_excuses_nothing() -> None:
    refused = rotated("a1", 40.9, 42.0).model_copy(update={"outcome": Outcome.FAIL})
    assert dataflow.judge(told(flow(41.0), refused, fault("kill", 50.0))).broken


# ---------------------------------------------------------------------------------- convergence


def test_all_is_well_in_the_end() -> None:
    same = [final(f"ms{n}", 1) for n in (1, 2, 3)]
    assert convergence.judge(told(Settled(what="digests", took_s=3.0), *same)).held


@pytest.mark.parametrize(
    "ends",
    [
        (Settled(what="a1 and a2", took_s=31.0), *(final(f"ms{n}", 1) for n in (1, 2, 3))),
        (Settled(what="a1 and a2", took_s=None), *(final(f"ms{n}", 1) for n in (1, 2, 3))),
        (final("ms1", 1), final("ms2", 1), final("ms3", 1, digest="other")),
        (final("ms1", 1), final("ms2", 1), final("ms3", 2)),
        (final("ms1", 1), final("ms2", 1), final("ms3", 1).model_copy(update={"numbers": {}})),
    ],
)
def test_an_end_that_is_not_well(ends: tuple[Record, ...]) -> None:
    assert convergence.judge(told(*ends)).broken


def test_a_server_that_says_nothing_at_the_end_is_no_proof() -> None:
    assert not convergence.judge(told(Settled(what="d", took_s=1.0), final("ms1", 1))).held


# --------------------------------------------------------------------------------------- health


def sample(at: float, rss_mb: float = 50.0, fds: int = 20) -> Sample:
    return Sample(at=at, host="ms1", role="replica", pid=7, rss_mb=rss_mb, fds=fds)


def missed(at: float) -> Vanished:
    return Vanished(host="ms1", role="replica", pid=7, seen=at - 1, missed=at)


def test_a_process_that_a_fault_ended_and_one_that_is_steady() -> None:
    history = told(*(sample(float(at)) for at in range(100)), missed(41.0))
    history.add(fault("kill", 40.0, roles=("replica",)))
    assert health.judge(history).held


@pytest.mark.parametrize(
    "roles", [(), ("responder",)], ids=["a fault that ends nothing", "another process"]
)
def test_a_process_that_ended_by_itself(roles: tuple[str, ...]) -> None:
    history = told(sample(1.0), missed(41.0), fault("kill", 40.0, roles=roles))
    assert "ended by itself" in health.judge(history).broken[0]


def test_the_device_of_a_key_that_was_rotated_away() -> None:
    def lost(role: str) -> Vanished:
        return Vanished(host="a1", role=role, pid=7, seen=40.0, missed=41.0)

    turn = rotated("a1", 39.0, 40.5)
    assert health.judge(told(sample(1.0), lost("wireguard dat"), turn)).held
    assert health.judge(told(sample(1.0), lost("wireguard dat2"), turn)).held
    assert not health.judge(told(sample(1.0), lost("wireguard ctl"), turn)).held
    assert not health.judge(told(sample(1.0), lost("wireguard dat"))).held


def test_a_machine_that_was_lost_with_its_devices() -> None:
    lost = Vanished(host="ms1", role="wireguard msh", pid=7, seen=40.0, missed=41.0)
    reboot = fault("reboot", 40.0, roles=("wireguard",))
    assert health.judge(told(sample(1.0), lost, reboot)).held
    assert not health.judge(told(sample(1.0), lost, fault("kill", 40.0, roles=("replica",)))).held


def test_a_traceback_and_what_grows() -> None:
    history = told(*(sample(at, 50.0 + at, 20 + at) for at in range(130)))
    history.add(Said(host="ms1", text="Traceback (most recent call last)"))
    said, memory, descriptors = health.judge(history).broken
    assert "Traceback" in said
    assert "MB" in memory
    assert "descriptors" in descriptors


def test_the_buffers_of_wireguard_go_are_no_leak() -> None:
    grown = [sample(at, 30.0 + at) for at in range(130)]
    wireguard = [one.model_copy(update={"role": "wireguard ctl"}) for one in grown]
    assert health.judge(told(*wireguard)).held
    assert not health.judge(told(*grown)).held
    leaking = [one.model_copy(update={"rss_mb": one.rss_mb * 3}) for one in wireguard]
    assert not health.judge(told(*leaking)).held


# ----------------------------------------------------------------------------------- the file


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    records: list[Record] = [RUN, register(1, 1.0), shown(1, 2.0), fault("kill", 3.0), flow(1.0)]
    with file.Recorder(tmp_path / file.NAME) as recorder:
        for record in records:
            recorder.add(record)
    again = file.read(tmp_path / file.NAME)
    assert again == recorder.history == told(*records[1:])


def test_a_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / file.NAME
    path.write_text(RUN.model_dump_json() + '\n{"kind": "call", "whom": 1}\n')
    with pytest.raises(ConfigError, match="line 2"):
        file.read(path)
    with pytest.raises(ConfigError, match="No such file"):
        file.read(tmp_path / "absent")
