"""Map-Requests: who is answered, with what."""

import ipaddress
import json
import random
from pathlib import Path

import pytest

from support.tables import (
    SETTINGS,
    Network,
    control,
    enrolled,
    key,
    mapped,
    replies,
    request,
    sent,
    server,
    told,
)
from wgmap.addresses import IPNetwork
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    Action,
    Eid,
    Encapsulated,
    LocatorForm,
    MapReply,
    MapRequest,
    RequestRecord,
)
from wgmap_cluster.feed import Forward
from wgmap_cluster.responder.service import Service

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/lisp.json").read_text())
TWO = (
    enrolled("a1"),
    enrolled("a2"),
    mapped("a1", "10.66.1.0/24"),
    mapped("a2", "10.66.2.1/32", version=9),
    mapped("a2", "fd66::2/128", version=9),
)


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def only_reply(actions: list) -> MapReply:  # type: ignore[type-arg]
    (reply,) = replies(actions)
    return reply


def prefixes(reply: MapReply) -> set[str]:
    return {str(record.eid.prefix) for record in reply.records}


def test_an_answer_carries_every_prefix_of_the_peer_with_key_and_endpoint() -> None:
    network = Network(*TWO)
    actions = network.ask("a1", "10.66.2.1/32")
    reply = only_reply(actions)
    assert reply.nonce == 77
    assert prefixes(reply) == {"10.66.2.1/32", "fd66::2/128"}
    for record in reply.records:
        assert (record.ttl_min, record.version, record.authoritative) == (60, 9, True)
        (locator,) = record.locators
        assert (str(locator.address), locator.port, locator.key) == ("192.0.2.2", 51820, key("a2"))
        assert (locator.form, locator.local) == (LocatorForm.WGMAP, False)
    assert sent(actions)[-1].destination == (control("a1"), 4342)


def test_a_source_that_is_not_enrolled_or_is_revoked_gets_nothing() -> None:
    network = Network(*TWO, enrolled("a3", revoked=True))
    assert network.ask("a3", "10.66.2.1/32") == []
    assert network.ask("a9", "10.66.2.1/32") == []
    assert network.service.counters["refused.unknown_source"] == 2


def test_the_instance_of_a_request_must_be_the_peers() -> None:
    network = Network(*TWO, enrolled("a4", instance=7), mapped("a4", "10.66.2.1/32", instance=7))
    assert network.ask("a1", "10.66.2.1/32", instance=7) == []
    assert network.service.counters["refused.foreign_instance"] == 1
    reply = only_reply(network.ask("a4", "10.66.2.1/32", instance=7))
    assert reply.records[0].eid == Eid(net("10.66.2.1/32"), 7)
    assert reply.records[0].locators[0].key == key("a4")


def test_answers_are_authoritative_only_within_the_lease() -> None:
    network = Network(*TWO)
    network.lease(1.0)
    assert only_reply(network.ask("a1", "10.66.2.1/32")).records[0].authoritative
    network.now += 1.0
    late = only_reply(network.ask("a1", "10.66.2.1/32", "10.66.99.1/32"))
    assert [record.authoritative for record in late.records] == [False] * 3
    network.lease(1.0)
    assert only_reply(network.ask("a1", "10.66.2.1/32")).records[0].authoritative


def test_an_unknown_eid_in_the_overlay_is_to_be_asked_for_again() -> None:
    network = Network(*TWO)
    (record,) = only_reply(network.ask("a1", "10.66.3.1/32")).records
    assert (record.action, record.ttl_min, record.locators) == (Action.SEND_MAP_REQUEST, 1, ())
    assert record.authoritative
    # 10.66.2.1 is mapped: the largest prefix around 10.66.3.1 without it
    assert record.eid.prefix == net("10.66.3.0/24")


def test_without_a_neighbour_the_negative_answer_is_as_wide_as_the_overlay() -> None:
    network = Network(enrolled("a1"), mapped("a1", "fd66::1/128"))
    (record,) = only_reply(network.ask("a1", "10.66.3.1/32")).records
    assert record.eid.prefix == net("10.66.0.0/16")


def test_outside_the_overlay_packets_go_natively_but_never_inside_it() -> None:
    network = Network(*TWO)
    (record,) = only_reply(network.ask("a1", "10.67.0.1/32")).records
    assert record.action is Action.NATIVELY_FORWARD
    assert record.eid.prefix == net("10.67.0.0/16")
    (record,) = only_reply(network.ask("a1", "203.0.113.9/32")).records
    assert not record.eid.prefix.overlaps(ipaddress.IPv4Network("10.66.0.0/16"))
    assert record.eid.prefix == net("128.0.0.0/1")


def test_without_a_configured_overlay_nothing_is_forwarded_natively() -> None:
    network = Network(*TWO)
    network.copy(5, *TWO)
    (record,) = only_reply(network.ask("a1", "203.0.113.9/32")).records
    assert record.action is Action.SEND_MAP_REQUEST


def test_several_records_are_answered_in_one_message() -> None:
    network = Network(*TWO)
    reply = only_reply(network.ask("a1", "10.66.2.1/32", "fd66::2/128", "10.66.9.9/32"))
    assert prefixes(reply) == {"10.66.2.1/32", "fd66::2/128", "10.66.8.0/21"}
    assert len(reply.records) == 3
    assert network.ask("a1", *["10.66.2.1/32"] * 40) == []
    assert network.service.counters["refused.too_many_records"] == 1


@pytest.mark.parametrize(
    ("flag", "reason"),
    [("probe", "probe"), ("smr", "smr"), ("dont_map_reply", "no_reply_wanted")],
)
def test_requests_that_are_not_for_a_map_server_are_dropped(flag: str, reason: str) -> None:
    network = Network(*TWO)
    record = RequestRecord(Eid(net("10.66.2.1/32")))
    message = MapRequest(1, (ipaddress.ip_address("::1"),), (record,), **{flag: True})  # type: ignore[arg-type]
    assert network.send("a1", encode(message)) == []
    assert network.service.counters[f"refused.{reason}"] == 1


def test_an_encapsulated_request_is_answered_to_the_outer_source() -> None:
    network = Network(*TWO)
    inner = decode(request("10.66.2.1/32", nonce=5))
    assert isinstance(inner, MapRequest)
    anywhere = ipaddress.ip_address("203.0.113.1")
    datagram = encode(Encapsulated(anywhere, 4999, anywhere, 4342, inner))
    actions = network.send("a1", datagram)
    assert only_reply(actions).nonce == 5
    assert sent(actions)[-1].destination == (control("a1"), 4999)
    secured = bytes((datagram[0] | 0x08,)) + datagram[1:]  # S: wants LISP-SEC
    assert network.send("a1", secured) == []
    assert network.service.counters["refused.malformed"] == 1


@pytest.mark.parametrize("bad", VECTORS["malformed"], ids=lambda bad: bad["name"])
def test_malformed_vectors_get_no_answer_and_are_counted(bad: dict[str, str]) -> None:
    network = Network(enrolled("a1", "10.0.0.0/24"), mapped("a1", "10.0.0.0/24"))
    actions = network.send("a1", bytes.fromhex(bad["hex"]))
    assert sent(actions) == []
    if bad["name"] == "bad-mac":  # a register: its authentication is the replica's to judge
        assert isinstance(told(actions)[0].message, Forward)
        return
    counted = [name for name in network.service.counters if name.startswith("refused.")]
    assert counted == ["refused.probe" if bad["level"] == "service" else "refused.malformed"]


@pytest.mark.parametrize("good", VECTORS["good"], ids=lambda good: good["name"])
def test_good_vectors_are_served_or_refused_for_a_reason(good: dict[str, str]) -> None:
    network = Network(enrolled("a1"), enrolled("a2"), mapped("a2", "10.0.0.2/32"))
    actions = network.send("a1", bytes.fromhex(good["hex"]))
    requests = {"01-map-request-v4", "03-map-request-subscribe", "04-ecm-map-request"}
    if good["name"] in requests:
        assert [r.eid.prefix for r in only_reply(actions).records] == [net("10.0.0.2/32")]
    elif good["name"] == "02-map-request-v6-two-rlocs":
        assert only_reply(actions).records[0].action is Action.NATIVELY_FORWARD
    elif "register" in good["name"] and "ack" not in good["name"]:
        assert [type(tell.message) for tell in told(actions)] == [Forward]
    else:
        assert actions == []
        reasons = {"refused.unexpected_type", "refused.smr", "push.unknown_ack"}
        assert reasons & {name for name, count in network.service.counters.items() if count}


def test_any_bytes_from_an_agent_are_survived() -> None:
    network = Network(*TWO)
    rng = random.Random(5)
    good = [bytes.fromhex(vector["hex"]) for vector in VECTORS["good"]]
    for _ in range(3000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        network.now += 0.01
        network.send("a1", bytes(data[: rng.randrange(len(data) + 1)]))
    assert network.service.counters["refused.malformed"] > 100
    assert replies(network.ask("a1", "10.66.2.1/32"))


def test_an_oversized_datagram_is_refused() -> None:
    network = Network(*TWO)
    assert network.send("a1", b"\x10" + bytes(20_000)) == []
    assert network.service.counters["refused.oversized"] == 1


def test_a_peer_that_asks_too_often_is_limited_and_others_are_not() -> None:
    network = Network(*TWO)
    assert SETTINGS.requests
    answered = sum(bool(replies(network.ask("a1", "10.66.2.1/32"))) for _ in range(5000))
    assert answered == SETTINGS.requests[1]
    assert network.service.counters["refused.limited"] == 5000 - answered
    assert replies(network.ask("a2", "10.66.1.1/32"))
    network.now += 1
    assert replies(network.ask("a1", "10.66.2.1/32"))


# ------------------------------------------------------------------------------- overlapping


def test_a_foreign_mapping_inside_is_left_out_of_the_answer() -> None:
    network = Network(*TWO, enrolled("a3"), mapped("a3", "10.66.1.128/25"))
    reply = only_reply(network.ask("a2", "10.66.1.1/32"))
    assert prefixes(reply) == {"10.66.1.0/25"}
    assert reply.records[0].locators[0].key == key("a1")
    assert prefixes(only_reply(network.ask("a2", "10.66.1.200/32"))) == {"10.66.1.128/25"}


def test_a_peers_own_mapping_inside_is_no_hole() -> None:
    network = Network(*TWO, mapped("a1", "10.66.1.128/25"))
    reply = only_reply(network.ask("a2", "10.66.1.1/32"))
    assert prefixes(reply) == {"10.66.1.0/24", "10.66.1.128/25"}


def test_the_records_of_a_peer_hold_none_of_anothers_addresses_and_all_of_its_own() -> None:
    network = Network(*TWO, enrolled("a3"), mapped("a3", "10.66.1.77/32"))
    reply = only_reply(network.ask("a2", "10.66.1.1/32"))
    nets = [record.eid.prefix for record in reply.records]
    addresses = [a for a in ipaddress.ip_network("10.66.1.0/24") if any(a in n for n in nets)]
    assert len(addresses) == 255
    assert ipaddress.ip_address("10.66.1.77") not in addresses
    assert sum(n.num_addresses for n in nets) == 255


def test_where_there_are_too_many_holes_the_part_asked_for_is_answered() -> None:
    hosts = [mapped("a3", f"10.66.1.{n}/32") for n in range(2, 250, 4)]
    network = Network(*TWO, enrolled("a3"), *hosts)
    reply = only_reply(network.ask("a2", "10.66.1.1/32"))
    assert prefixes(reply) == {"10.66.1.0/31"}
    assert prefixes(only_reply(network.ask("a2", "10.66.1.252/32"))) == {"10.66.1.248/29"}


def test_a_hole_that_closes_makes_the_answer_whole_again() -> None:
    network = Network(*TWO, enrolled("a3"), mapped("a3", "10.66.1.128/25"))
    assert prefixes(only_reply(network.ask("a2", "10.66.1.1/32"))) == {"10.66.1.0/25"}
    network.change(mapped("a3", "10.66.1.128/25")._replace(row=None))
    assert prefixes(only_reply(network.ask("a2", "10.66.1.1/32"))) == {"10.66.1.0/24"}


# -------------------------------------------------------------------------------- plain LISP


def test_a_plain_client_gets_plain_locators_one_record_a_message_and_short_ttls() -> None:
    network = Network(*TWO, enrolled("a5", plain=True), mapped("a1", "10.66.7.0/24", ttl_min=1440))
    answers = replies(network.ask("a5", "10.66.2.1/32", "10.66.7.1/32"))
    assert [len(reply.records) for reply in answers] == [1, 1]
    for reply in answers:
        (record,) = reply.records
        assert record.ttl_min == 60
        assert [(at.form, at.key) for at in record.locators] == [(LocatorForm.PLAIN, None)]
    assert str(answers[0].records[0].locators[0].address) == "192.0.2.2"


def test_who_registered_without_a_key_is_plain_whatever_it_was_enrolled_as() -> None:
    network = Network(*TWO, enrolled("a5"), mapped("a5", "10.66.5.0/24", plain=True))
    (reply,) = replies(network.ask("a5", "10.66.2.1/32"))
    assert reply.records[0].locators[0].form is LocatorForm.PLAIN
    (reply,) = replies(network.ask("a1", "10.66.5.1/32"))
    assert reply.records[0].locators[0].form is LocatorForm.PLAIN


def test_an_agent_that_has_not_registered_yet_gets_keys() -> None:
    network = Network(*TWO, enrolled("a6"))
    (reply,) = replies(network.ask("a6", "10.66.2.1/32"))
    assert reply.records[0].locators[0].key == key("a2")


# ------------------------------------------------------------------------------- server set


def test_the_control_prefix_is_answered_with_the_servers() -> None:
    network = Network(*TWO, server("ms1"), server("ms2"))
    reply = only_reply(network.ask("a1", "fd77:676d:6170::/64"))
    assert prefixes(reply) == {"fd77:676d:6170::1001/128", "fd77:676d:6170::1002/128"}
    locator = reply.records[0].locators[0]
    assert (str(locator.address), locator.port) == ("192.0.2.1", 51822)
    assert locator.key == key("control ms1")


@pytest.mark.parametrize("eid", ["fd77:676d:6170::/64", "fd77:676d:6170::9/128"])
def test_where_nobody_knows_the_servers_the_control_prefix_is_denied_whole(eid: str) -> None:
    """The set of servers is asked for by the prefix itself, as agents do."""
    network = Network(*TWO)
    (record,) = only_reply(network.ask("a1", eid)).records
    assert record.eid.prefix == net("fd77:676d:6170::/64")
    assert (record.action, record.locators) == (Action.NATIVELY_FORWARD, ())
    (beside,) = only_reply(network.ask("a1", "fd77:676d:6171::1/128")).records
    assert beside.eid.prefix == net("fd77:676d:6171::/48"), "but not what lies around it"


# --------------------------------------------------------------------------------- registers


def test_a_register_is_the_replicas_as_it_came() -> None:
    network = Network(*TWO)
    data = bytes.fromhex(next(v["hex"] for v in VECTORS["good"] if v["name"] == "10-map-register"))
    (tell,) = told(network.send("a1", data))
    assert tell.message == Forward((control("a1"), 4342), data)
    (tell,) = told(network.send("a99", data))  # with HMAC the replica knows it all the same
    assert isinstance(tell.message, Forward)
    network.service.detached()
    assert network.send("a1", data) == []
    assert network.service.counters["refused.register_no_replica"] == 1


def test_who_registers_too_often_is_limited() -> None:
    network = Network(*TWO)
    data = bytes.fromhex(next(v["hex"] for v in VECTORS["good"] if v["name"] == "10-map-register"))
    forwarded = sum(bool(network.send("a1", data)) for _ in range(1000))
    assert SETTINGS.registers
    assert forwarded == SETTINGS.registers[1]
    assert network.send("a2", data)


def test_an_empty_responder_answers_nobody() -> None:
    service = Service(SETTINGS, random.Random(1))
    assert service.datagram(request("10.66.2.1/32"), (control("a1"), 4342), 1.0) == []
    assert service.counters["refused.unknown_source"] == 1
