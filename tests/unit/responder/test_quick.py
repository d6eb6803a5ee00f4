"""The quick way answers as the codec's way does, and leaves the rest to it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tables import Network, enrolled, mapped, request, sent, server, told
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.mark import Mark
from wgmap.lisp.messages import Eid, MapRequest, RequestRecord
from wgmap_cluster.feed import Barrier
from wgmap_cluster.responder import quick

addresses = st.ip_addresses()
requests = st.builds(
    lambda nonce, source, rloc, eid, subscribe, mark, refresh: MapRequest(
        nonce,
        (rloc,),
        (RequestRecord(Eid(ipaddress.ip_network(eid)), subscribe),),
        None if source is None else Eid(ipaddress.ip_network(source)),
        smr_invoked=refresh,
        xtr=None if mark is None else Mark.decode(mark).xtr(),
    ),
    st.integers(0, 2**64 - 1),
    st.none() | addresses,
    addresses,
    addresses,
    st.booleans(),
    st.none() | st.binary(min_size=24, max_size=24),
    st.booleans(),
)


def mark_of(message: MapRequest) -> bytes:
    return b"" if message.xtr is None else Mark.of(message.xtr).encode()


@given(requests)
def test_the_usual_request_is_read_as_the_codec_reads_it(message: MapRequest) -> None:
    address = message.records[0].eid.prefix.network_address
    assert quick.parse(encode(message)) == (
        message.nonce.to_bytes(8),
        address.packed,
        mark_of(message),
        message.smr_invoked,
    )


@given(requests, st.data())
def test_what_is_read_quickly_is_always_a_good_request(
    message: MapRequest, data: st.DataObject
) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))]) if data.draw(st.booleans()) else raw
    parsed = quick.parse(bytes(cut))
    if parsed is None:
        return
    read = decode(bytes(cut))
    assert isinstance(read, MapRequest)
    (record,) = read.records
    assert (record.eid.instance, record.eid.prefix.prefixlen) in {(0, 32), (0, 128)}
    address = record.eid.prefix.network_address
    assert parsed == (read.nonce.to_bytes(8), address.packed, mark_of(read), read.smr_invoked)
    flags = (read.probe, read.smr, read.dont_map_reply, read.authoritative)
    assert not any(flags)
    assert read.map_reply_record is None


NETWORK = (
    enrolled("a1"),
    enrolled("a2"),
    enrolled("a3"),
    enrolled("a4", instance=7),
    enrolled("a5", plain=True),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.0/24"),
    mapped("a2", "fd66::2/128"),
    mapped("a3", "10.66.2.128/25"),
    server("ms1"),
)


@pytest.mark.parametrize("name", ["a1", "a2", "a3", "a4", "a5"])
@pytest.mark.parametrize("lease_s", [10.0, -1.0])
@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize(
    "eid", ["10.66.2.1", "10.66.2.200", "fd66::2", "10.66.9.9", "192.0.2.1", "fd77:676d:6170::1001"]
)
def test_both_ways_give_the_same_answer(
    name: str, lease_s: float, eid: str, *, refresh: bool
) -> None:
    host = str(ipaddress.ip_network(eid))
    usual = request(host, refresh=refresh)
    flagged = bytes((usual[0] | 0x08,)) + usual[1:]  # A: for the codec to read, nothing changes
    assert quick.parse(usual) is not None
    assert quick.parse(flagged) is None
    answers = []
    for datagram in (usual, flagged):
        network = Network(*NETWORK)
        network.lease(lease_s)
        given = network.send(name, datagram)
        for asked in told(given):
            assert isinstance(asked.message, Barrier)
            given += network.barrier(asked.message.number)
        answers.append((sent(given), +network.service.counters))
    assert answers[0] == answers[1]
    assert answers[0][0] or name == "a4", "it is answered at all (a4 is of another instance)"
