"""Tables that are no longer answered from are compared and let go of in pieces, and do go."""

import gc
from collections.abc import Iterator

import pytest

from support.tables import META, Network, enrolled, mapped, notifies
from wgmap_cluster.feed import Rows, TableBegin
from wgmap_cluster.fsm.rows import Change
from wgmap_cluster.responder.former import GONE, PIECE, Former
from wgmap_cluster.responder.mappings import Peer
from wgmap_cluster.responder.table import Tables

COUNT = 3 * PIECE


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    """Have the interpreter collect nothing, as in a responder whose tables are frozen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def peers() -> int:
    return sum(isinstance(one, Peer) for one in gc.get_objects())


def name(number: int) -> str:
    return f"a{number}"


def host(number: int) -> str:
    return f"10.66.{number >> 8}.{number & 255}/32"


def network(version: int) -> tuple[Change, ...]:
    hosts = [mapped(name(n), host(n), version=version, rloc="192.0.2.9") for n in range(1, COUNT)]
    return (*(enrolled(name(number)) for number in range(1, COUNT + 1)), *hosts)


def test_a_copy_takes_the_place_of_the_former_tables_which_go() -> None:
    there = Network()
    before = peers()
    for index in range(2, 6):
        there.copy(index, *META, *network(index))
        there.tick(1.0)
        assert peers() == before + COUNT
    assert not there.service.counters["refused.unknown_source"]


def test_a_copy_that_is_broken_off_or_begun_anew_goes_as_well() -> None:
    there = Network(*network(1))
    before = peers()
    there.service.feed(TableBegin(8), there.now)
    there.service.feed(Rows((*META, *network(8))), there.now)
    there.service.feed(TableBegin(9), there.now)
    there.service.feed(Rows((*META, *network(9))), there.now)
    assert peers() == before + 2 * COUNT
    there.service.detached()
    there.service.attached(there.now)
    there.tick(1.0)
    assert peers() == before


def test_a_copy_that_is_older_goes_as_well() -> None:
    there = Network()
    there.copy(9, *META, *network(9))
    there.tick(1.0)
    before = peers()
    there.copy(5, *META, *network(5))
    there.tick(1.0)
    assert there.service.index == 9
    assert peers() == before


def test_who_was_told_of_the_former_tables_is_told_of_what_is_new_piece_by_piece() -> None:
    there = Network(*network(1))
    for number in range(1, COUNT):
        there.ask(name(COUNT), host(number))
    first = there.copy(8, *META, *network(8))
    assert len(notifies(first)) <= PIECE
    told: set[str] = set()
    pushed = first
    while pushed:
        there.acknowledge(pushed)
        told |= {str(record.eid.prefix) for _, one in notifies(pushed) for record in one.records}
        pushed = there.tick(0.05)
        assert all(record.version == 8 for _, one in notifies(pushed) for record in one.records)
    assert told == {host(number) for number in range(1, COUNT)}


def test_several_that_wait_go_faster() -> None:
    former, present = Former(), Tables()
    for _ in range(3):
        tables = Tables()
        for change in network(1):
            tables.apply(change)
        former.add(tables)
    steps = 0
    while former:
        former.step(present)
        steps += 1
    assert steps < 3 * COUNT / GONE + 3
