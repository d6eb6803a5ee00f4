"""The replica's parts together, over a real feed socket and a log in memory."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.eventually import eventually
from support.fsm import ORIGIN, address_of, bootstrap, enrol, key, prefix
from support.log import MemoryLog
from support.replica import Client, map_register
from wgmap.addresses import IPAddress
from wgmap.lisp.auth import sign, verify
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    AuthAlgorithm,
    Authentication,
    Eid,
    Locator,
    LocatorForm,
    MapNotify,
    MapRegister,
    Record,
    XtrId,
)
from wgmap_cluster.feed import Contact, FeedServer, Lease
from wgmap_cluster.fsm import commands
from wgmap_cluster.fsm.commands import Command, Enrol, Op, Revoke, SetPeer
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.rows import FEED_TABLES, Table
from wgmap_cluster.raft.interface import Member
from wgmap_cluster.replica import feeding
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.feeding import Feeder
from wgmap_cluster.replica.proposing import Proposer
from wgmap_cluster.replica.registrations import ATTEMPTS, Registrar

OUTER = ipaddress.ip_address("192.0.2.11")
A1 = (str(ipaddress.ip_address(address_of(key(1)))), 4342)
PLAIN = ("10.9.9.9", 4342)


class Tunnels:
    """All control tunnels come from one address."""

    async def is_outer(self, control: IPAddress, rloc: IPAddress) -> bool:
        assert control.version == 6 or str(control) == PLAIN[0]
        await asyncio.sleep(0)
        return rloc == OUTER

    def last_outer(self, _: IPAddress) -> IPAddress:
        return OUTER


class Bench:
    """A machine on a memory log, with registrar and feeder around it."""

    def __init__(self, path: Path, spawn: Callable[[Any], object]) -> None:
        self.path = path
        self.machine = Machine()
        self.log = MemoryLog(self.machine)
        self.core = Core(self.machine, self.log, Proposer("ms1", self.log), spawn)
        self.fresh = True
        self.seen: list[str] = []
        self.registrar = Registrar(
            self.core,
            outer=Tunnels(),
            fresh=lambda: self.fresh,
            seen=self.seen.append,
        )
        self.feeder = Feeder(self.core, self.registrar)

    async def do(self, command: Command) -> None:
        await self.log.propose(commands.encode(command))

    def counted(self) -> dict[str, int]:
        return dict(self.core.counters)

    def mappings(self) -> list[str]:
        found = self.machine.state.mappings
        return sorted(str(ipaddress.ip_network((raw[1:], raw[0]))) for _, raw in found)


@asynccontextmanager
async def bench_at(path: Path) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as group:
        bench = Bench(path, group.create_task)
        with FeedServer(path) as server:
            task = group.create_task(bench.feeder.serve(server))
            try:
                yield bench
            finally:
                task.cancel()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path / "feed.sock") as made:
        await made.do(bootstrap())
        await made.do(enrol("a1", 1, "10.66.1.0/24", "fd66::1/128"))
        yield made


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[Client]:
    made = await Client.attach(bench.path)
    await made.until(lambda: made.copies)
    yield made
    await made.close()


def register(nonce: int, *prefixes: str, at: str = str(OUTER), ttl: int = 60) -> bytes:
    return map_register(nonce, *prefixes, at=at, ttl=ttl)


def same_tables(bench: Bench, client: Client) -> bool:
    return all(client.tables[t] == bench.machine.state.tables[t] for t in FEED_TABLES)


async def ignored(bench: Bench, client: Client, datagram: bytes, source: tuple[str, int]) -> None:
    """Forward a datagram and wait until it was handled; it must not be answered."""
    handled = bench.core.counters["register.received"] + 1
    answers = len(client.answers)
    client.forward(datagram, source)
    for _ in range(200):
        if bench.core.counters["register.received"] == handled and not bench.registrar.in_flight:
            break
        await asyncio.sleep(0.01)
    assert bench.core.counters["register.received"] == handled
    await client.barrier(handled)
    assert len(client.answers) == answers


# Registration.


async def test_a_register_is_acknowledged_with_what_was_accepted(
    bench: Bench, client: Client
) -> None:
    notify = await client.register(register(7, "10.66.1.0/24", "fd66::1/128"), A1)
    assert notify.nonce == 7
    assert [str(record.eid.prefix) for record in notify.records] == ["10.66.1.0/24", "fd66::1/128"]
    assert all(record.version == 1 and record.authoritative for record in notify.records)
    locator = notify.records[0].locators[0]
    assert (locator.address, locator.port, locator.key) == (OUTER, 51820, key(99))
    assert len(client.tables[Table.MAPPINGS]) == 2, "the changes came before the answer"


async def test_it_is_acknowledged_only_after_commit(bench: Bench, client: Client) -> None:
    bench.log.gate.clear()
    client.forward(register(1, "10.66.1.0/24"), A1)
    assert await client.barrier(1)
    assert bench.registrar.in_flight == 1
    assert client.answers == []
    bench.log.gate.set()
    await client.until(lambda: client.answers)
    assert bench.registrar.in_flight == 0


async def test_without_a_quorum_nothing_is_acknowledged(bench: Bench, client: Client) -> None:
    bench.log.quorum = bench.fresh = False
    await ignored(bench, client, register(1, "10.66.1.0/24"), A1)
    assert bench.counted()["register.not_committed"] == 1
    assert not await client.barrier(77)


@pytest.mark.parametrize("deaths", [[False], [True], [False, True]])
async def test_a_register_that_a_dying_leader_took_along_is_proposed_again(
    bench: Bench, client: Client, deaths: list[bool]
) -> None:
    bench.log.deaths = list(deaths)
    notify = await client.register(register(9, "10.66.1.0/24"), A1)
    assert notify.nonce == 9
    assert [record.version for record in notify.records] == [1], "it took effect once"
    assert bench.counted()["register.proposed_again"] == len(deaths)


async def test_a_register_is_not_proposed_for_ever(bench: Bench, client: Client) -> None:
    bench.log.deaths = [False] * 10
    await ignored(bench, client, register(9, "10.66.1.0/24"), A1)
    assert len(bench.log.deaths) == 10 - ATTEMPTS


async def test_a_register_that_another_server_does_not_read_yet_is_not_proposed(
    bench: Bench, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stop that server; its agent hears nothing and tries again."""
    monkeypatch.setattr(commands, "VERSION", 2)
    monkeypatch.setitem(commands.SINCE, Op.REGISTER, 2)
    proposed = len(bench.log.commands)
    bench.log.servers["ms2"] = Member("ms2", "[fd00::2]:4343")  # its note has never come
    await ignored(bench, client, register(1, "10.66.1.0/24"), A1)
    assert bench.counted()["register.needs_upgrade"] == 1
    assert len(bench.log.commands) == proposed
    del bench.log.servers["ms2"]
    assert (await client.register(register(2, "10.66.1.0/24"), A1)).nonce == 2


async def test_an_unchanged_register_is_no_log_entry_and_counts_as_seen(
    bench: Bench, client: Client
) -> None:
    datagram = register(5, "10.66.1.0/24")
    first = await client.register(datagram, A1)
    entries = len(bench.log.commands)
    assert await client.register(datagram, A1) == first
    assert len(bench.log.commands) == entries
    assert bench.seen == ["a1"]
    bench.fresh = False
    await ignored(bench, client, datagram, A1)
    assert bench.counted()["register.not_fresh"] == 1


async def test_an_older_nonce_is_answered_with_what_is_stored(bench: Bench, client: Client) -> None:
    await client.register(register(50, "10.66.1.0/24"), A1)
    for datagram in (register(3, "fd66::1/128"), register(50, "fd66::1/128")):
        notify = await client.register(datagram, A1)
        assert notify.nonce == 50
        assert [str(record.eid.prefix) for record in notify.records] == ["10.66.1.0/24"]
    assert bench.mappings() == ["10.66.1.0/24"]
    await client.register(register(51, "fd66::1/128"), A1)
    assert bench.mappings() == ["fd66::1/128"]


async def test_an_expired_mapping_comes_back_with_the_same_bytes(
    bench: Bench, client: Client
) -> None:
    datagram = register(5, "10.66.1.0/24", ttl=1)
    await client.register(datagram, A1)
    await bench.do(commands.Expire(1000.0, ("a1",)))
    assert bench.mappings() == []
    notify = await client.register(datagram, A1)
    assert notify.records[0].version == 2
    assert bench.mappings() == ["10.66.1.0/24"]


async def test_a_withdrawal_is_acknowledged_with_ttl_zero(bench: Bench, client: Client) -> None:
    await client.register(register(1, "10.66.1.0/24"), A1)
    notify = await client.register(register(2, "10.66.1.0/24", ttl=0), A1)
    assert [(r.ttl_min, r.locators) for r in notify.records] == [(0, ())]
    assert bench.mappings() == []


async def test_a_flood_of_one_peer_is_coalesced(bench: Bench, client: Client) -> None:
    entries = len(bench.log.commands)
    bench.log.gate.clear()
    for nonce in (1, 1, 2, 3, 9, 8):
        client.forward(register(nonce, "10.66.1.0/24"), A1)
    await client.barrier(1)
    bench.log.gate.set()
    await client.until(lambda: len(client.answers) == 2)
    nonces = [message.nonce for message in notifies(client)]
    assert nonces == [1, 9]
    assert len(bench.log.commands) == entries + 2
    assert bench.counted()["register.coalesced"] == 5


def notifies(client: Client) -> list[MapNotify]:
    messages = [decode(answer.datagram) for answer in client.answers]
    return [message for message in messages if isinstance(message, MapNotify)]


# Refusals: each with a counter, none with an answer.


def with_locators(*locators: Locator, ttl: int = 60) -> bytes:
    record = Record(Eid(ipaddress.ip_network("10.66.1.0/24")), locators, ttl)
    return encode(MapRegister(1, (record,)))


def signed(secret: bytes) -> bytes:
    return sign(register(1, "10.66.1.0/24"), 0, AuthAlgorithm.HMAC_SHA256_128, secret)


VICTIM = Locator(ipaddress.ip_address("198.51.100.1"), 51820, key(9))
OWN = Locator(OUTER, 51820, key(9))
OTHER_KEY = Locator(OUTER, 51821, key(8))
IN_OTHER_INSTANCE = encode(
    MapRegister(1, (Record(Eid(ipaddress.ip_network("10.66.1.0/24"), 3), (OWN,)),))
)


@pytest.mark.parametrize(
    ("datagram", "source", "counter"),
    [
        (b"\x30\x00", A1, "malformed"),
        (register(1, "10.66.1.0/24") + b"\0", A1, "malformed"),
        (encode(MapNotify(1, ())), A1, "not_a_register"),
        (register(1, "10.66.1.0/24"), ("fd77:676d:6170::99", 4342), "unknown_source"),
        (register(1, "10.66.1.0/24"), ("10.66.1.1", 4342), "unknown_source"),
        (register(1, "10.66.2.0/24"), A1, "not_owner"),
        (register(1, "10.66.1.0/24", "10.0.0.0/8"), A1, "not_owner"),
        (IN_OTHER_INSTANCE, A1, "not_owner"),
        (signed(b"secret"), A1, "authentication"),
        (with_locators(VICTIM), A1, "no_locator"),
        (with_locators(), A1, "no_locator"),
        (with_locators(OWN, OTHER_KEY), A1, "invalid"),
        (encode(MapRegister(1, ())), A1, "limit"),
    ],
)
async def test_refused_counted_and_not_answered(
    bench: Bench, client: Client, datagram: bytes, source: tuple[str, int], counter: str
) -> None:
    entries = len(bench.log.commands)
    await ignored(bench, client, datagram, source)
    assert bench.counted()[f"register.refused.{counter}"] == 1
    assert len(bench.log.commands) == entries


async def test_the_source_of_another_peer_does_not_help(bench: Bench, client: Client) -> None:
    await bench.do(enrol("b", 2, "10.66.2.0/24"))
    source = (str(ipaddress.ip_address(address_of(key(2)))), 4342)
    await ignored(bench, client, register(1, "10.66.1.0/24"), source)
    assert bench.counted()["register.refused.not_owner"] == 1


async def test_a_revoked_peer_is_refused(bench: Bench, client: Client) -> None:
    await bench.do(Revoke("a1", ORIGIN))
    await ignored(bench, client, register(1, "10.66.1.0/24"), A1)
    assert bench.counted()["register.refused.revoked"] == 1


async def test_a_revocation_between_proposal_and_commit_wins(bench: Bench, client: Client) -> None:
    bench.log.gate.clear()
    client.forward(register(1, "10.66.1.0/24"), A1)
    await client.barrier(1)
    bench.machine.apply(99, commands.encode(Revoke("a1", ORIGIN)))
    bench.log.gate.set()
    await client.until(lambda: client.tables[Table.REVOCATIONS])
    for _ in range(200):
        if not bench.registrar.in_flight:
            break
        await asyncio.sleep(0.01)
    assert bench.counted()["register.refused.revoked"] == 1
    assert client.answers == []


async def test_locators_elsewhere_are_dropped_unless_enrolled(bench: Bench, client: Client) -> None:
    notify = await client.register(with_locators(OWN, VICTIM), A1)
    assert [locator.address for locator in notify.records[0].locators] == [OUTER]
    assert bench.counted()["register.locators_dropped"] == 1
    await bench.do(SetPeer("a1", ORIGIN, endpoint_allow=(prefix("198.51.100.0/24"),)))
    record = Record(Eid(ipaddress.ip_network("10.66.1.0/24")), (OWN, VICTIM))
    notify = await client.register(encode(MapRegister(2, (record,))), A1)
    assert len(notify.records[0].locators) == 2


async def test_a_public_private_address_is_not_told_to_others(bench: Bench, client: Client) -> None:
    inside = Locator(OUTER, 51820, key(9), private_address=ipaddress.ip_address("8.8.8.8"))
    notify = await client.register(with_locators(inside), A1)
    assert notify.records[0].locators[0].private_address is None


# Plain LISP clients.


async def test_a_plain_client_proves_itself_and_is_answered_in_kind(
    bench: Bench, client: Client
) -> None:
    address = ipaddress.ip_address(PLAIN[0]).packed
    await bench.do(
        Enrol(
            *("oor", 0, (prefix("10.66.5.0/24"),), ORIGIN, b"", address),
            lisp_key=b"hush",
            lisp_auth=AuthAlgorithm.HMAC_SHA1,
        )
    )
    locator = Locator(OUTER, form=LocatorForm.PLAIN)
    record = Record(Eid(ipaddress.ip_network("10.66.5.0/24")), (locator,), 10)
    blank = MapRegister(9, (record,), Authentication(1), xtr=XtrId(b"x" * 16, b"s" * 8))
    good = sign(encode(blank), 1, AuthAlgorithm.HMAC_SHA1, b"hush")
    for bad in (encode(blank), sign(encode(blank), 1, AuthAlgorithm.HMAC_SHA1, b"wrong")):
        await ignored(bench, client, bad, PLAIN)
    assert bench.counted()["register.refused.authentication"] == 2
    notify = await client.register(good, PLAIN)
    assert notify.nonce == 9
    assert verify(client.answers[-1].datagram, notify, b"hush", legacy_sha1=True)
    assert notify.xtr == XtrId(b"x" * 16, b"s" * 8)
    assert notify.records[0].locators[0].form is LocatorForm.PLAIN


# The feed.


async def test_a_copy_and_then_changes(bench: Bench, client: Client) -> None:
    assert same_tables(bench, client)
    for number in range(2, 40):
        await bench.do(enrol(f"p{number}", number, f"10.67.{number}.0/24"))
    await client.until(lambda: same_tables(bench, client))
    assert client.copies == 1
    assert client.index == bench.machine.index


async def test_attaching_at_a_known_index_takes_no_copy(bench: Bench, client: Client) -> None:
    index = client.index
    await bench.do(enrol("b", 2, "10.66.2.0/24"))
    late = await Client.attach(bench.path, index)
    await late.until(lambda: "b" in late.tables[Table.PEERS])
    assert late.copies == 0
    assert "a1" not in late.tables[Table.PEERS], "only what was missed"
    await late.close()


async def test_a_responder_ahead_of_a_restarted_replica_waits_for_it(
    bench: Bench, client: Client
) -> None:
    index = bench.machine.index
    ahead = await Client.attach(bench.path, index + 1)
    await ahead.barrier(1)
    await bench.do(enrol("b", 2, "10.66.2.0/24"))
    await bench.do(enrol("c", 3, "10.66.3.0/24"))
    await ahead.until(lambda: ahead.tables[Table.PEERS])
    assert list(ahead.tables[Table.PEERS]) == ["c"], "what it had already is not told again"
    assert ahead.copies == 0
    await ahead.close()


async def test_a_responder_that_claims_too_much_gets_a_copy(bench: Bench) -> None:
    ahead = await Client.attach(bench.path, 10_000)
    await ahead.barrier(1)
    bench.feeder.lease(5.0)
    await ahead.until(lambda: ahead.copies)
    assert same_tables(bench, ahead)
    await ahead.close()


async def test_a_restored_state_is_copied_to_everybody(bench: Bench, client: Client) -> None:
    other = Machine()
    other.apply(1, commands.encode(bootstrap()))
    other.apply(2, commands.encode(enrol("x", 8, "10.66.8.0/24")))
    bench.machine.restore(iter(list(other.snapshot())))
    await client.until(lambda: client.copies == 2)
    assert list(client.tables[Table.PEERS]) == ["x"]


async def test_changes_during_a_copy_are_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "COPY_ROWS", 1)
    late = await Client.attach(bench.path)
    for number in range(2, 30):
        await bench.do(enrol(f"p{number}", number, f"10.67.{number}.0/24"))
        await asyncio.sleep(0)
    await late.until(lambda: late.copies and same_tables(bench, late))
    await late.close()


async def test_leases_and_barriers_come_in_order(bench: Bench, client: Client) -> None:
    bench.feeder.lease(123.5)
    await client.until(lambda: client.lease == 123.5)
    await bench.do(enrol("b", 2, "10.66.2.0/24"))
    assert await client.barrier(5)
    assert "b" in client.tables[Table.PEERS]
    bench.log.quorum = False
    assert not await client.barrier(6)


async def test_a_responder_that_talks_nonsense_is_cut_off(bench: Bench) -> None:
    client = await Client.attach(bench.path)
    client.connection.send(Lease(1.0))
    with pytest.raises(Exception, match="closed"):
        await client.until(lambda: False)
    assert bench.counted()["feed.errors"] == 1
    await client.close()


async def test_responders_tell_who_was_told_of_whom(
    bench: Bench, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "ANSWER_S", 0.2)
    assert await bench.feeder.contacts("", "", 9) is None, "it does not answer"
    client.known = (Contact("a1", "a2", 1.5, "heard"),)
    assert await bench.feeder.contacts("", "", 9) == list(client.known)
    await client.close()
    await eventually(lambda: not bench.feeder.sessions)
    assert await bench.feeder.contacts("", "", 9) is None, "there is none"
