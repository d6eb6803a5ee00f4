"""What holds for every message and for every bytes."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import lisp_values as values
from support.lisp_check import accept, check_bytes, check_record
from wgmap.lisp import usual
from wgmap.lisp.codec import (
    acknowledgement,
    decode,
    encode,
    map_notify_ack_header,
    map_notify_header,
    map_reply_header,
)
from wgmap.lisp.messages import (
    CodecError,
    Encapsulated,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
)
from wgmap.lisp.reader import Reader
from wgmap.lisp.records import encode_record

VECTORS = Path(__file__).parents[2] / "vectors"
SEEDS = [
    bytes.fromhex(vector["hex"])
    for name in ("lisp.json", "lisp-extra.json")
    for part in ("good", "malformed")
    for vector in json.loads((VECTORS / name).read_text())[part]
]


@given(values.map_requests)
def test_map_request_round_trip(message: MapRequest) -> None:
    assert decode(encode(message)) == message


@given(values.map_replies)
def test_map_reply_round_trip(message: MapReply) -> None:
    assert decode(encode(message)) == message


@given(values.map_registers)
def test_map_register_round_trip(message: MapRegister) -> None:
    assert decode(encode(message)) == message


@given(values.map_notifies)
def test_map_notify_round_trip(message: MapNotify) -> None:
    assert decode(encode(message)) == message


@given(values.map_notify_acks)
def test_map_notify_ack_round_trip(message: MapNotifyAck) -> None:
    assert decode(encode(message)) == message


@given(values.encapsulated())
def test_encapsulated_round_trip(message: Encapsulated) -> None:
    assert decode(encode(message)) == message


@given(values.nonces, st.lists(values.records, max_size=3))
def test_joined_records_are_the_message(nonce: int, records: list[Record]) -> None:
    joined = b"".join(map(encode_record, records))
    count = len(records)

    assert map_reply_header(nonce, count) + joined == encode(MapReply(nonce, tuple(records)))
    assert map_notify_header(nonce, count) + joined == encode(MapNotify(nonce, tuple(records)))
    acknowledged = encode(MapNotifyAck(nonce, tuple(records)))
    assert map_notify_ack_header(nonce, count) + joined == acknowledged


@settings(max_examples=400)
@given(values.usual_records, st.data())
def test_a_usual_record_is_read_quickly_and_as_the_general_reader_does(
    record: Record, data: st.DataObject
) -> None:
    whole = encode_record(record)
    assert usual.read(Reader(whole)) == record
    mutated = bytearray(whole)
    position = data.draw(st.integers(0, len(mutated) - 1))
    mutated[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    check_record(bytes(mutated))


def test_a_notify_is_acknowledged_by_its_own_bytes() -> None:
    for seed in SEEDS:
        message = accept(seed)
        if isinstance(message, MapNotify) and not message.authentication.data:
            ack = MapNotifyAck(
                message.nonce, message.records, message.authentication, xtr=message.xtr
            )
            assert decode(acknowledgement(seed)) == ack


@given(st.binary(max_size=300))
def test_random_bytes_never_surprise(data: bytes) -> None:
    check_bytes(data)


@given(st.sampled_from((1, 2, 3, 4, 5, 8)), st.binary(max_size=300))
def test_random_bytes_behind_a_known_type_never_surprise(kind: int, data: bytes) -> None:
    check_bytes(bytes((kind << 4,)) + data)


@settings(max_examples=400)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_packets_never_surprise(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, max(0, len(mutated) - 1)))
        size = data.draw(st.integers(0, 2))
        mutated[position : position + size] = data.draw(st.binary(max_size=3))
    check_bytes(bytes(mutated))


@given(values.messages, st.data())
def test_every_cut_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(CodecError) as caught:
        decode(cut)
    assert 0 <= caught.value.offset <= len(cut)
