"""The digest of a state: the same for the same rows, another one for any other."""

from support.fsm import Driver, enrol, register
from wgmap_cluster.fsm.commands import Advance, Command
from wgmap_cluster.fsm.digest import digest
from wgmap_cluster.fsm.machine import Machine

COMMANDS: tuple[Command, ...] = (
    enrol("a1", 1, "10.66.1.1/32"),
    enrol("a2", 2, "10.66.2.1/32"),
    register(1, 1, "10.66.1.1/32"),
    register(1, 2, "10.66.1.1/32", at="192.0.2.12"),
    Advance(9.0),
)


def test_every_command_changes_it_and_a_snapshot_does_not() -> None:
    driver = Driver()
    seen = {digest(driver.machine.copies())}
    for command in COMMANDS:
        driver.apply(command)
        seen.add(digest(driver.machine.copies()))
    assert len(seen) == 1 + len(COMMANDS)
    other = Machine()
    other.restore(iter(list(driver.machine.snapshot())))
    assert digest(other.copies()) == digest(driver.machine.copies())


def test_the_order_of_rows_does_not_count() -> None:
    one, other = Driver(), Driver()
    for driver, commands in ((one, COMMANDS[:2]), (other, COMMANDS[1::-1])):
        for command in commands:
            driver.apply(command)
    peers = [dict(driver.machine.state.peers) for driver in (one, other)]
    assert list(peers[0]) != list(peers[1])
    tables = one.machine.copies()
    for table, rows in tables.items():
        tables[table] = dict(reversed(rows.items()))
    assert digest(tables) == digest(one.machine.copies())
