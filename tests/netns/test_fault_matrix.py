"""First contact under every fault: the 5 s retry of WireGuard never shows (make test-matrix: all).

The share of every run: each fault at 0 and 20 ms one way, pushes on time.
"""

from collections.abc import Iterator

import pytest

from support.lab import Lab
from wgmap_chaos.contacts.contact import Contacts, limit_ms
from wgmap_chaos.contacts.faults import FAULTS, Fault

pytestmark = [pytest.mark.netns, pytest.mark.slow]

DELAYS_MS = (0, 20)
LATE_MS = (10, 50)
TRIES = 3  # for a fault to take what it is for: otherwise the contact does not count


@pytest.fixture
def contacts(lab: Lab) -> Iterator[Contacts]:
    made = Contacts(lab.directory)
    yield made
    made.set(0)


def check(contacts: Contacts, delay_ms: float, late_ms: float, fault: Fault) -> None:
    contacts.set(delay_ms, late_ms, fault.loss_percent)
    made = contacts.make(fault)
    for _ in range(TRIES - 1):
        if not made.effective:  # where both pull, there may be nothing left to push
            made = contacts.make(fault)
    assert made.effective, made
    assert made.worst_ms <= limit_ms(delay_ms, late_ms, fault), made
    if not fault.loss_percent:
        assert made.lost == 0, made  # what was held first is answered first


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_shows_the_retry(contacts: Contacts, delay_ms: float, name: str) -> None:
    check(contacts, delay_ms, 0, FAULTS[name])


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("late_ms", LATE_MS)
def test_a_late_push_is_made_good_at_once(
    contacts: Contacts, delay_ms: float, late_ms: float
) -> None:
    """The initiation came before it, was dropped, and is delivered again."""
    contacts.set(delay_ms, late_ms)
    made = contacts.make(Fault())
    puller, target = made.counters
    if late_ms > delay_ms:  # else the push still comes first: its way is one shorter
        assert target.get("peer.came_early", 0) == 1, made
    assert "peer.kicked" not in puller, made
    assert made.worst_ms <= limit_ms(delay_ms, late_ms, Fault()), made


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("new_key", [False, True])
def test_the_destination_was_just_restarted(
    contacts: Contacts, delay_ms: float, new_key: bool
) -> None:
    contacts.set(delay_ms)
    first = contacts.restart_target(new_key=new_key)
    assert first is not None
    assert first <= limit_ms(delay_ms, 0, Fault())
