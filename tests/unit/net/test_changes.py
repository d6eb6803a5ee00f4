"""Messages of the kernel about changes, as bytes."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from wgmap.net.changes import Change, ChangeKind, parse_changes

NEWLINK, DELADDR, NEWROUTE = 16, 21, 24
OWN, FOREIGN = 87, 4


def message(kind: int, body: bytes) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return data + bytes(-len(data) % 4)


def route(protocol: int) -> bytes:
    return message(NEWROUTE, struct.pack("=8BI", 2, 24, 0, 0, 254, protocol, 0, 1, 0))


def test_several_messages_in_one_datagram() -> None:
    data = (
        message(NEWLINK, struct.pack("=BxHiII", 0, 1, 7, 0, 0))
        + message(DELADDR, struct.pack("=4BI", 10, 64, 0, 0, 9) + b"odd")
        + route(FOREIGN)
    )
    assert parse_changes(data, OWN) == [
        Change(ChangeKind.LINK, added=True, index=7),
        Change(ChangeKind.ADDRESS, added=False, index=9),
        Change(ChangeKind.ROUTE, added=True),
    ]


def test_our_own_routes_are_no_news() -> None:
    assert parse_changes(route(OWN), OWN) == []


@given(st.binary(max_size=120))
def test_garbage_is_passed_over(data: bytes) -> None:
    assert len(parse_changes(data, OWN)) <= len(data) // 16
