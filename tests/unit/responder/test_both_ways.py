"""The quick way against the codec's, on any tables, and both against a plain model of them."""

import ipaddress
from dataclasses import replace
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from support.tables import (
    Network,
    control,
    enrolled,
    mapped,
    notifies,
    replies,
    request,
    sent,
    server,
    unmapped,
)
from wgmap.addresses import prefix_from_bytes
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import MapNotifyAck, Record
from wgmap_cluster.fsm.rows import Change, MappingRow
from wgmap_cluster.responder import quick
from wgmap_cluster.responder.actions import Action, Send
from wgmap_cluster.responder.written import mapping_record

PEERS = ("a1", "a2", "a3", "a4")  # a4 is a plain LISP client
HOSTS = ("10.66.1.1/32", "10.66.1.200/32", "10.66.2.1/32", "fd66::1/128", "fd66::2/128")
WIDE = ("10.66.1.0/24", "10.66.1.128/25", "10.66.1.200/31", "fd66::/112", "0.0.0.0/0")
EIDS = (
    *("10.66.1.1", "10.66.1.200", "10.66.1.201", "10.66.2.1", "10.66.9.9", "192.0.2.1"),
    *("fd66::1", "fd66::2", "fd66::3", "2001:db8::1", "fd77:676d:6170::1001"),
)
A_BIT = 0x08  # in the first byte of a request: for the codec to read, nothing changes

peers = st.sampled_from(PEERS)
prefixes = st.sampled_from(HOSTS + WIDE)
changes = st.one_of(
    st.builds(
        lambda name, where, version: mapped(name, where, version=version, plain=name == "a4"),
        *(peers, prefixes, st.integers(1, 4095)),
    ),
    st.builds(unmapped, prefixes),
    st.builds(
        lambda name, revoked: enrolled(name, revoked=revoked, plain=name == "a4"),
        *(peers, st.booleans()),
    ),
)
asked = st.tuples(peers, st.sampled_from(EIDS), st.integers(0, 9))
Step: TypeAlias = Change | tuple[str, str, int] | float
steps = st.lists(
    st.one_of(changes, asked, asked, st.sampled_from([-1.0, 5.0, 3600.0])), max_size=14
)


def ask(network: Network, name: str, datagram: bytes, *, exact: bool) -> list[Action]:
    """Ask, and acknowledge what is pushed: to the byte, or as another client would."""
    actions = network.send(name, datagram)
    for to, notify in notifies(actions):
        records = notify.records if exact else ()
        ack = encode(MapNotifyAck(notify.nonce, records))
        sender = next(peer for peer in PEERS if control(peer) == to)
        actions += network.send(sender, ack)
    return actions


@given(steps)
def test_both_ways_say_and_count_the_same_whatever_the_tables(many: list[Step]) -> None:
    rows = [enrolled(name, plain=name == "a4") for name in PEERS]
    usual, general = Network(*rows, server("ms1")), Network(*rows, server("ms1"))
    for step in many:
        if isinstance(step, Change):
            assert usual.change(step) == general.change(step)
        elif isinstance(step, float):
            usual.lease(step)
            general.lease(step)
        else:
            name, eid, seconds = step
            datagram = request(str(ipaddress.ip_network(eid)))
            flagged = bytes((datagram[0] | A_BIT,)) + datagram[1:]
            assert quick.parse(datagram)
            assert not quick.parse(flagged)
            one = ask(usual, name, datagram, exact=True)
            assert one == ask(general, name, flagged, exact=False)
            assert usual.tick(seconds) == general.tick(seconds)
    assert +usual.service.counters == +general.service.counters


# ------------------------------------------------------------------------------ a plain model


def expected(rows: dict[str, MappingRow], eid: str) -> list[Record] | None:
    """Return the records of the peer with the longest match; None where nothing lies around."""
    address = ipaddress.ip_address(eid)
    around = [p for p in rows if address in ipaddress.ip_network(p)]
    best = max(around, key=lambda p: ipaddress.ip_network(p).prefixlen, default=None)
    if best is None:
        return None
    of_peer = [(p, row) for p, row in rows.items() if row.peer == rows[best].peer]
    return [mapping_record(0, _bytes_of(p), row) for p, row in of_peer]


def _bytes_of(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    return bytes((network.prefixlen,)) + network.network_address.packed


@given(
    st.lists(st.tuples(st.sampled_from(PEERS[1:3]), st.sampled_from(HOSTS), st.integers(1, 9))),
    st.sampled_from(EIDS[:-1]),
    st.booleans(),
)
def test_hosts_are_answered_with_all_records_of_their_peer(
    many: list[tuple[str, str, int]], eid: str, fresh: bool
) -> None:
    network = Network(*[enrolled(name) for name in PEERS[:3]])
    rows: dict[str, MappingRow] = {}
    for name, where, version in many:
        change = mapped(name, where, version=version)
        network.change(change)
        assert isinstance(change.row, MappingRow)
        if where in rows and rows[where].peer != name:
            del rows[where]  # it becomes the last of its new peer
        rows[where] = change.row
    network.lease(10.0 if fresh else -1.0)
    (reply,) = replies(network.ask("a1", str(ipaddress.ip_network(eid))))
    records = expected(rows, eid)
    if records is None:
        assert [record.locators for record in reply.records] == [()]
        covered = prefix_from_bytes(_bytes_of(str(reply.records[0].eid.prefix)))
        assert not any(covered.overlaps(ipaddress.ip_network(p)) for p in rows)
    else:
        assert list(reply.records) == [replace(r, authoritative=fresh) for r in records]


def test_an_acknowledgement_that_is_not_its_push_to_the_byte_is_read() -> None:
    network = Network(
        *(enrolled("a1"), enrolled("a2"), enrolled("a3")),
        *(mapped("a1", "10.66.1.1/32"), mapped("a2", "10.66.2.1/32")),
    )
    (push,) = [
        s for s in sent(network.ask("a1", "10.66.2.1/32")) if s.destination[0] == control("a2")
    ]
    ack = b"\x50" + push.datagram[1:]
    counters = network.service.counters
    network.send("a3", ack)  # nothing is out to that one
    network.send("a2", ack[:-1])
    network.send("a2", ack + b"\0")
    assert (counters["push.unknown_ack"], counters["refused.malformed"]) == (1, 2)
    network.send("a2", ack)
    assert counters["push.acknowledged"] == 1
    assert not [s for s in network.tick(60.0) if isinstance(s, Send)]
    network.send("a2", ack)
    assert counters["push.unknown_ack"] == 2
