"""Map-Requests, Map-Registers and what is known of the servers."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from support.agent_values import IDENTITY, SERVERS, net, record
from wgmap.lisp import codec
from wgmap.lisp.messages import Eid, MapReply, MapRequest, Record
from wgmap_agent.engine.cache import Cache
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.requests import Requests
from wgmap_agent.engine.servers import RoundTrip, Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Send

TARGET = net("10.66.2.1/32")
SETTINGS = Settings()


class Asking:
    """Requests with everything that they need."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.counters = Counters()
        self.rng = random.Random(1)
        self.servers = Servers(SERVERS, settings, self.rng)
        self.servers.start(0.0)
        cache = Cache(settings, self.counters)
        self.requests = Requests(IDENTITY, self.servers, settings, self.rng, self.counters, cache)

    def ask(self, now: float = 0.0, *, refresh: bool = False) -> MapRequest:
        """Ask all servers; return what they get."""
        actions = self.requests.ask(now, TARGET, refresh=refresh)
        assert sorted(a.server for a in actions if isinstance(a, Send)) == ["ms1", "ms2", "ms3"]
        return sent_request(actions)


def sent_request(actions: Sequence[Action]) -> MapRequest:
    sends = [action for action in actions if isinstance(action, Send)]
    assert len({action.datagram for action in sends}) == 1
    message = codec.decode(sends[0].datagram)
    assert isinstance(message, MapRequest)
    return message


def reply(request: MapRequest, *records: Record) -> MapReply:
    return MapReply(request.nonce, records or (record(),))


def test_a_question_says_who_asks_and_for_what() -> None:
    request = Asking().ask()
    assert request.itr_rlocs == (IDENTITY.control_address,)
    assert request.records[0].eid.prefix == TARGET
    assert request.records[0].eid.instance == IDENTITY.instance
    assert request.source_eid is not None
    assert request.source_eid.prefix.version == TARGET.version
    assert not request.smr_invoked
    assert Asking().ask(refresh=True).smr_invoked


def test_nonces_use_all_64_bits() -> None:
    asking = Asking()
    nonces = []
    for _ in range(64):
        nonces.append(asking.ask().nonce)
        asking.requests.forget(TARGET)
    assert len(set(nonces)) == 64
    assert max(nonce.bit_length() for nonce in nonces) == 64


def test_any_authoritative_answer_wins_and_the_others_are_round_trips() -> None:
    asking = Asking()
    request = asking.ask()
    answer = asking.requests.reply(0.01, "ms2", reply(request))
    assert answer is not None
    assert answer.authoritative
    assert asking.requests.reply(0.02, "ms1", reply(request)) is None
    assert asking.servers.get("ms1").rtt.smoothed == pytest.approx(0.02)
    assert asking.counters["reply.extra"] == 1


def test_one_question_a_target_and_a_refresh_replaces_a_plain_one() -> None:
    asking = Asking()
    asking.ask()
    assert asking.requests.ask(0.0, TARGET) == []
    assert sent_request(asking.requests.ask(0.0, TARGET, refresh=True)).smr_invoked
    assert asking.requests.ask(0.0, TARGET, refresh=True) == []
    assert len(asking.requests) == 1


def test_questions_are_bounded() -> None:
    asking = Asking(Settings(max_requests=1))
    asking.ask()
    assert asking.requests.ask(0.0, net("10.66.3.1/32")) == []
    assert asking.counters["request.refused_too_many"] == 1


def test_an_unsure_answer_waits_for_a_better_one() -> None:
    asking = Asking()
    request = asking.ask()
    unsure = reply(request, record(authoritative=False))
    assert asking.requests.reply(0.01, "ms1", unsure) is None
    answer = asking.requests.reply(0.02, "ms2", reply(request))
    assert answer is not None
    assert answer.authoritative


def test_an_unsure_answer_is_used_when_no_better_one_comes() -> None:
    asking = Asking()
    unsure = reply(asking.ask(), record(authoritative=False))
    assert asking.requests.reply(0.01, "ms1", unsure) is None
    due = asking.requests.deadline()
    assert due is not None
    assert due < 0.25
    _, answers = asking.requests.due(due)
    assert [(a.records, a.authoritative) for a in answers] == [(unsure.records, False)]


def test_unsure_answers_of_all_servers_are_enough() -> None:
    asking = Asking()
    unsure = reply(asking.ask(), record(authoritative=False))
    answers = [asking.requests.reply(0.01, name, unsure) for name in ("ms1", "ms2", "ms3")]
    assert [answer is not None for answer in answers] == [False, False, True]


def test_a_better_answer_is_not_waited_for_from_servers_that_owe_one_for_long() -> None:
    asking = measured()
    for name in ("ms2", "ms3"):
        asking.servers.sent(0.5, name, quick=True)
    request = sent_request(asking.requests.ask(1.0, TARGET))
    answer = asking.requests.reply(1.04, "ms1", reply(request, record(authoritative=False)))
    assert answer is not None
    assert not answer.authoritative


def test_a_positive_answer_waits_for_a_better_one_as_long_as_that_needs() -> None:
    for positive, least, most in ((True, 1.5, 3.0), (False, 2.0, 4.0)):
        asking = measured()
        first = asking.requests.ask(1.0, TARGET)
        unsure = record(authoritative=False) if positive else Record(Eid(TARGET, 7), ttl_min=1)
        reply_to = sent_request(first)
        assert asking.requests.reply(1.04, asked(first)[0], reply(reply_to, unsure)) is None
        next_due(asking)  # the others are asked
        due = asking.requests.deadline()
        assert due is not None
        assert 1.04 + least * RTT <= due <= 1.04 + 0.05 + most * RTT


def test_a_better_answer_still_counts_after_an_unsure_one_was_used() -> None:
    asking = Asking()
    request = asking.ask()
    asking.requests.reply(0.01, "ms1", reply(request, record(authoritative=False)))
    due = asking.requests.deadline()
    assert due is not None
    asking.requests.due(due)
    answer = asking.requests.reply(due + 0.01, "ms2", reply(request))
    assert answer is not None
    assert answer.authoritative
    assert asking.requests.reply(due + 0.02, "ms3", reply(request)) is None


def test_an_answer_later_than_the_staleness_bound_is_unsure() -> None:
    asking = Asking(Settings(server_silent_s=5))
    request = asking.ask()
    late = [asking.requests.reply(1.01, name, reply(request)) for name in ("ms1", "ms2", "ms3")]
    assert late[0] is not None  # the others are as late: nobody waits for them
    assert not late[0].authoritative
    assert late[1:] == [None, None]


def test_repeats_grow_and_end() -> None:
    asking = Asking()
    asking.ask()
    times = []
    while (due := asking.requests.deadline()) is not None:
        actions, answers = asking.requests.due(due)
        times.append(due)
        if answers:
            assert actions == []
            assert answers[0].records == ()
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] == SETTINGS.request_unknown_rtt_s
    assert max(gaps) <= 1.1 * SETTINGS.request_cap_s
    assert times[-1] == SETTINGS.request_give_up_s
    assert 5 <= len(times) <= 12


@pytest.mark.parametrize("nonce_offset", [1, -1])
def test_replies_with_another_nonce_settle_nothing(nonce_offset: int) -> None:
    asking = Asking()
    request = asking.ask()
    other = MapReply((request.nonce + nonce_offset) % (1 << 64), (record(),))
    assert asking.requests.reply(0.01, "ms1", other) is None
    assert asking.requests.reply(0.01, "ms1", MapReply(request.nonce, ())) is None
    assert asking.requests.is_asking(TARGET)


# -------------------------------------------------------------------------------------- hedging

RTT = 0.04


def measured(settings: Settings = SETTINGS) -> Asking:
    """Three servers that were heard and are RTT away."""
    asking = Asking(settings)
    for info in SERVERS:
        for _ in range(30):
            asking.servers.sample(info.name, RTT)
        asking.servers.heard(0.0, info.name)
    return asking


def asked(actions: Sequence[Action]) -> list[str]:
    return [action.server for action in actions if isinstance(action, Send)]


def next_due(asking: Asking) -> tuple[float, list[Action]]:
    due = asking.requests.deadline()
    assert due is not None
    return due, asking.requests.due(due)[0]


def test_the_preferred_server_is_asked_alone_and_the_others_a_little_later() -> None:
    asking = measured()
    first = asking.requests.ask(1.0, TARGET)
    assert asked(first) == [asking.servers.names(1.0)[0]]
    due, more = next_due(asking)
    assert 1.0 + 1.5 * RTT <= due <= 1.0 + 3 * RTT
    assert sorted(asked(first) + asked(more)) == ["ms1", "ms2", "ms3"]
    assert sent_request(first) == sent_request(more)


def test_an_answer_in_time_costs_one_question() -> None:
    asking = measured()
    for number in range(200):
        now = 1.0 + number
        first = asking.requests.ask(now, TARGET)
        assert len(asked(first)) == 1
        assert asking.requests.reply(now + RTT, asked(first)[0], reply(sent_request(first)))
        asking.servers.heard(now + RTT, asked(first)[0])
    assert asking.counters["request.hedged"] == 0


def test_a_late_server_is_passed_over_at_once_and_what_it_was_asked_is_asked_of_others() -> None:
    asking = measured()
    first = asking.requests.ask(1.0, TARGET)
    (late,) = asked(first)
    other = net("10.66.3.1/32")
    assert asked(asking.requests.ask(1.01, other)) == [late]
    due, more = next_due(asking)
    assert asked(asking.requests.ask(due, net("10.66.4.1/32"))) != [late]
    winner = asked(more)[0]
    assert asking.requests.reply(due + RTT, winner, reply(sent_request(first)))
    assert asking.counters["server.passed_over"] == 1
    assert asking.servers.names(due + RTT)[0] != late
    at, hurried = next_due(asking)
    assert at == due + RTT
    assert late not in asked(hurried)
    assert len(asked(hurried)) == 2
    assert [one.info.name for one in asking.servers.due_probes(due + RTT)] == [late]


def test_the_place_of_a_server_that_was_passed_over_comes_back_later_each_time() -> None:
    servers = measured().servers
    best = servers.names(0.0)[0]
    now, waits = 1.0, []
    for _ in range(8):
        assert servers.passed_over(now, best)
        assert not servers.passed_over(now, best)
        back = now
        while servers.names(back)[0] != best:
            back += 0.1
        waits.append(back - now)
        now = back
    assert waits[0] < 3
    assert waits[:5] == sorted(waits[:5])
    assert waits[-1] <= 1.3 * SETTINGS.avoid_cap_s
    servers.passed_over(now + 2000, best)
    assert servers.names(now + 2003)[0] == best


def test_of_the_questions_at_most_a_tenth_is_hedged_while_nobody_is_silent() -> None:
    """The server answers two thirds of the questions late: its fault, but not the others' load."""
    asking = measured()
    questions, rng = 1000, random.Random(5)
    for number in range(questions):
        now = 1.0 + number
        for info in SERVERS:
            asking.servers.heard(now, info.name)
        first = asking.requests.ask(now, TARGET)
        took = RTT if rng.random() < 0.33 else 2.5 * RTT
        while (due := asking.requests.deadline()) is not None and due < now + took:
            asking.requests.due(due)
        asking.requests.reply(now + took, asked(first)[0], reply(sent_request(first)))
    assert 0 < asking.counters["request.hedged"] <= questions * 0.1 + SETTINGS.hedge_burst


def test_a_hedge_over_the_budget_waits_for_the_repetition() -> None:
    asking = measured(Settings(hedge_burst=0.5))
    first = asking.requests.ask(1.0, TARGET)
    assert next_due(asking)[1] == []
    assert asking.counters["request.hedge_refused"] == 1
    due, repeated = next_due(asking)
    assert due >= 1.0 + SETTINGS.request_floor_s
    assert sorted(asked(repeated)) == ["ms1", "ms2", "ms3"]
    assert len(asked(first)) == 1


def test_an_answer_out_of_touch_has_the_others_asked_at_once_and_costs_the_place() -> None:
    asking = measured()
    first = asking.requests.ask(1.0, TARGET)
    (unsure,) = asked(first)
    request = sent_request(first)
    records = record(authoritative=False)
    assert asking.requests.reply(1.01, unsure, reply(request, records)) is None
    due, more = next_due(asking)
    assert due == 1.01
    assert len(asked(more)) == 2
    answer = asking.requests.reply(1.05, asked(more)[0], reply(request))
    assert answer is not None
    assert answer.authoritative
    assert asking.servers.names(1.05)[0] != unsure


def test_a_far_server_comes_behind_and_a_silent_one_last() -> None:
    asking = measured()
    far, silent, near = asking.servers.names(0.0)
    for _ in range(60):
        asking.servers.sample(far, 4 * RTT)
    asking.servers.sent(0.0, silent)
    assert asking.servers.names(3.0) == (near, far, silent)


def test_a_silence_is_told_once() -> None:
    servers = measured().servers
    servers.sent(1.0, "ms2")
    assert servers.newly_silent(1.5) == frozenset()
    assert servers.newly_silent(3.0) == {"ms2"}
    assert servers.newly_silent(4.0) == frozenset()
    servers.heard(5.0, "ms2")
    servers.sent(5.0, "ms2")
    assert servers.newly_silent(9.0) == {"ms2"}


# -------------------------------------------------------------------------------------- servers


def test_a_round_trip_is_smoothed_and_bounds_the_timeout() -> None:
    rtt = RoundTrip()
    assert rtt.timeout(0.25, 0.1) == 0.25
    for _ in range(50):
        rtt.sample(0.16)
    assert rtt.smoothed == pytest.approx(0.16)
    assert rtt.timeout(0.25, 0.1) == pytest.approx(0.26)


def test_one_answer_that_waited_for_a_handshake_says_little_of_the_way() -> None:
    rtt = RoundTrip()
    for _ in range(20):
        rtt.sample(0.02)
    rtt.sample(2.0)
    assert rtt.smoothed is not None
    assert rtt.smoothed < 0.03
    for _ in range(30):
        rtt.sample(0.2)  # the way has become longer
    assert rtt.smoothed == pytest.approx(0.2, rel=0.1)


def test_a_first_answer_that_waited_is_forgotten_with_the_first_that_did_not() -> None:
    rtt = RoundTrip()
    rtt.sample(2.0)  # there was no handshake yet
    rtt.sample(0.04)
    assert rtt.smoothed == 0.04
    assert rtt.patience(SETTINGS.hedge_rtts, 1.0, SETTINGS.hedge_floor_s) <= 3 * 0.04
    for number in range(100):
        rtt.sample(0.03 if number % 2 else 0.05)  # what varies is smoothed
        assert rtt.smoothed == pytest.approx(0.04, abs=0.006)


def test_a_silent_server_loses_preference_and_gets_it_back() -> None:
    servers = Asking().servers
    best = servers.names(0.0)[0]
    servers.sent(0.0, best)
    assert servers.names(0.9)[0] == best
    assert servers.names(1.1)[0] != best
    assert servers.is_silent(1.1, best)
    assert servers.heard(1.2, best)
    assert servers.names(1.2)[0] == best


def test_a_server_that_owes_an_answer_is_late_only_where_another_was_heard_since() -> None:
    """Else it may be our own way out that is broken, and every server is as good as the others."""
    asking = measured()
    late, other, _ = asking.servers.names(0.0)
    for name in (late, other):
        asking.servers.sent(1.0, name, quick=True)
    late_at = 1.0 + asking.servers.patience(late)
    assert asking.servers.late(late_at + 0.1) == ()
    asking.servers.heard(1.04, other)
    assert asking.servers.late(late_at - 0.001) == ()
    assert asking.servers.deadline() == late_at
    assert asking.servers.late(late_at) == (late,)
    first = asking.requests.ask(1.05, TARGET, refresh=True)
    assert asked(first) == [late]
    asking.requests.notice_late(late_at)
    assert next_due(asking)[0] == late_at  # before the hedge of a refresh
    assert asking.servers.late(late_at) == ()  # once


def test_agents_spread_over_the_servers() -> None:
    preferred = {
        Servers(SERVERS, SETTINGS, random.Random(seed)).names(0.0)[0] for seed in range(30)
    }
    assert preferred == {"ms1", "ms2", "ms3"}


def test_probes_of_a_silent_server_back_off_and_measure() -> None:
    servers = Asking().servers
    times: list[float] = []
    while len(times) < 8:
        now = servers.deadline()
        for server in servers.due_probes(now):
            if server.info.name == "ms1":
                times.append(now)
            else:
                servers.heard(now, server.info.name)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[0] < 1.3
    assert max(gaps) <= 1.2 * SETTINGS.probe_s
    nonce = servers.get("ms1").probe_nonce
    assert nonce is not None
    assert servers.probe_answered(times[-1] + 0.05, "ms1", nonce)
    assert servers.get("ms1").rtt.smoothed == pytest.approx(0.05)
    assert not servers.probe_answered(times[-1] + 0.05, "ms1", nonce)
