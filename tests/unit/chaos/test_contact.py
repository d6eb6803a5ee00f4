"""What ping says of a first contact, as the matrix of faults reads it."""

from collections.abc import Iterator

import pytest

from wgmap_chaos.contacts.contact import LATER, Reply, read_answers

HEAD = b"PING 10.66.2.1 (10.66.2.1) 56(84) bytes of data.\n"


def line(number: int, ms: float = 1.5) -> bytes:
    return b"64 bytes from 10.66.2.1: icmp_seq=%d ttl=64 time=%.2f ms\n" % (number, ms)


@pytest.mark.parametrize(
    ("numbers", "reply"),
    [
        ([1], Reply(1.5)),
        ([2, 1], Reply(101.5, overtaken=1)),
        ([4, 2, 3, 1], Reply(301.5, overtaken=3)),
        ([2, *range(3, 3 + LATER)], Reply(101.5, lost=1)),
        ([3, 2, *range(4, 4 + LATER)], Reply(201.5, lost=1, overtaken=1)),
        ([2], Reply(101.5, lost=1)),
        ([], None),
    ],
)
def test_what_was_overtaken_is_not_lost(numbers: list[int], reply: Reply | None) -> None:
    assert read_answers([HEAD, *map(line, numbers)]) == reply


def test_it_reads_no_further_than_it_must() -> None:
    def lines(*numbers: int) -> Iterator[bytes]:
        yield HEAD
        yield from map(line, numbers)
        pytest.fail("all was known")

    assert read_answers(lines(1)) == Reply(1.5)
    assert read_answers(lines(2, 1)) == Reply(101.5, overtaken=1)
    assert read_answers(lines(2, *range(3, 2 + LATER), 2 + LATER)) == Reply(101.5, lost=1)
