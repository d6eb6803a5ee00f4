"""What operators can do, whichever way they ask (today: the admin socket).

Reading is done on this server's state. Changing is a command of the replicated log; whether it
is allowed is decided where it is applied, so that every server decides alike.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from wgmap.addresses import IPAddress, IPNetwork, prefix_to_bytes
from wgmap.errors import ConfigError, ConflictError, NotFoundError, UnavailableError, WgmapError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm import commands
from wgmap_cluster.fsm.commands import Command, CommandError, Enrol, Origin, Revoke
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied, Done, Reason, Refused
from wgmap_cluster.fsm.rows import MappingRow, Meta, PeerRow
from wgmap_cluster.raft.interface import (
    LogStatus,
    MemberStatus,
    Outcome,
    Proposal,
    ReplicatedLog,
    Role,
)
from wgmap_cluster.replica import agent_config
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.views import (
    LISP_AUTH,
    AddedView,
    PeerDetailView,
    PeerView,
    ResolveView,
    RevokedView,
    ServerView,
    StatusView,
    key_text,
    lisp_auth_name,
    locator_views,
    mapping_view,
    peer_view,
    prefix_texts,
)

POLL_S = 0.02  # how often others' notes are looked at while a revocation spreads

_ERRORS: dict[Reason, type[WgmapError]] = {
    Reason.BAD_COMMAND: ConfigError,
    Reason.PREFIX_RESERVED: ConfigError,
    Reason.INVALID: ConfigError,
    Reason.LIMIT: ConfigError,
    Reason.UNKNOWN_PEER: NotFoundError,
    Reason.UNKNOWN_SERVER: NotFoundError,
    Reason.NOT_FOUNDED: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A peer to enrol: with a control key (an agent) or an address (a plain LISP client)."""

    name: str
    prefixes: tuple[IPNetwork, ...]
    control_key: PublicKey | None = None
    control_address: IPAddress | None = None
    endpoint_allow: tuple[IPNetwork, ...] = ()
    instance: int = 0
    lisp_key: bytes = field(default=b"", repr=False)
    lisp_auth: str = "sha256"


class Operations:
    """Implements them over the state machine and the log of one server.

    All methods raise WgmapErrors: ConfigError for a request that is wrong in itself,
    ConflictError and NotFoundError where it does not fit the state, UnavailableError without a
    quorum (the request may then still take effect, as the text says; repeating it is harmless).
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        log: ReplicatedLog,
        note: Callable[[], ServerNote],
        staleness_s: float,
    ) -> None:
        """Act for server ``name``; ``note`` returns what it publishes about itself."""
        self._name = name
        self._machine = machine
        self._log = log
        self._note = note
        self._staleness_s = staleness_s

    # Peers.

    async def add_peer(self, enrolment: Enrolment, operator: str, wall: str) -> AddedView:
        """Enrol a peer; the same once more changes nothing and succeeds."""
        done, _ = await self._do(_enrol(enrolment, Origin(self._name, operator, wall)))
        row = self._peer(enrolment.name)
        return {
            "peer": self._peer_view(enrolment.name, row),
            "config": self._agent_config(enrolment.name, row),
            "changed": done.changed,
        }

    def peers(self) -> Iterator[PeerView]:
        """Show all peers as they are now, in the order of their names.

        Drawn lazily, so that a caller can pause between them; a change meanwhile does no harm.
        """
        rows = sorted(self._machine.state.peers.items())
        return (self._peer_view(name, row) for name, row in rows)

    def peer(self, name: str) -> PeerDetailView:
        """Show one peer with its mappings."""
        row = self._peer(name)
        held = self._machine.state.held_by(name)
        return {
            **self._peer_view(name, row),
            "endpoint_allow": prefix_texts(row.endpoint_allow),
            "lisp_auth": lisp_auth_name(row),
            "mappings": [mapping_view(prefix, mapping) for (_, prefix), mapping in held],
        }

    async def revoke_peer(self, name: str, operator: str, wall: str) -> RevokedView:
        """Shut a peer out; returns when every server has applied it, or after 2 S.

        S is the staleness bound: after twice that time a server which has not applied it gives
        no answer with authority any more.
        """
        _, proposal = await self._do(Revoke(name, Origin(self._name, operator, wall)))
        unconfirmed = await self._spread(proposal.index, 2 * self._staleness_s)
        confirmed = [server for server in self._servers() if server not in unconfirmed]
        return {"name": name, "confirmed": confirmed, "unconfirmed": unconfirmed}

    # The cluster.

    def status(self) -> StatusView:
        """Show the cluster as this server sees it."""
        log = self._log.status()
        state = self._machine.state
        counts = state.counts()
        cluster_id = state.meta.get(Meta.CLUSTER_ID)
        return {
            "leader": log.leader,
            "term": log.term,
            "cluster_id": cluster_id.hex() if isinstance(cluster_id, bytes) else None,
            "servers": [self._server_view(server, log) for server in self._servers()],
            "peers": counts.peers,
            "mappings": counts.mappings,
        }

    async def resolve(self, instance: int, eid: IPAddress | IPNetwork) -> ResolveView:
        """Show the most specific mapping that holds an EID; ``fresh``: a quorum said so."""
        fresh = await self._log.read_barrier(self._staleness_s) is not None
        found = self._longest_match(instance, ipaddress.ip_network(eid))
        prefix, row = found if found is not None else (None, None)
        return {
            "instance": instance,
            "eid": str(eid),
            "found": row is not None,
            "fresh": fresh,
            "version": row.version if row else None,
            "ttl_s": 60 * row.ttl_min if row else None,
            "key": key_text(row.key) if row else None,
            "locators": locator_views(row.locators) if row else [],
            "prefix": str(prefix) if prefix else None,
            "peer": row.peer if row else None,
        }

    # How.

    async def _do(self, command: Command) -> tuple[Done, Proposal]:
        try:
            data = commands.encode(command)
        except CommandError as error:
            raise ConfigError(str(error)) from error
        proposal = await self._log.propose(data)
        if proposal.outcome is not Outcome.APPLIED:
            raise UnavailableError(_why_not(proposal))
        return _done(proposal.result), proposal

    async def _spread(self, index: int, wait_s: float) -> list[str]:
        """Wait until every server has applied ``index``; return those that have not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while (behind := self._behind(index)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)  # the log tells of notes by no event
        return behind

    def _peer(self, name: str) -> PeerRow:
        row = self._machine.state.peers.get(name)
        if row is None:
            raise NotFoundError(f"no peer is called {name!r}")
        return row

    def _peer_view(self, name: str, row: PeerRow) -> PeerView:
        state = self._machine.state
        return peer_view(name, row, state.registrations.get(name), state.clock)

    def _agent_config(self, name: str, row: PeerRow) -> str:
        state = self._machine.state
        control_prefix = state.control_prefix
        if control_prefix is None:
            raise UnavailableError(str(Reason.NOT_FOUNDED))
        return agent_config.render(name, row, state.servers, state.overlay, control_prefix)

    def _servers(self) -> list[str]:
        return sorted({self._name, *self._machine.state.servers, *self._log.status().others})

    def _behind(self, index: int) -> list[str]:
        """Return the servers that are not known to have applied the command at ``index``."""
        others = self._log.status().others
        names = [server for server in self._servers() if server != self._name]
        return [server for server in names if _applied(others.get(server)) < index]

    def _server_view(self, server: str, log: LogStatus) -> ServerView:
        if server == self._name:
            return _server_view(server, log.role.value, self._note())
        member = log.others.get(server)
        if member is None or not member.connected:
            return _server_view(server, "unreachable", None)
        note = ServerNote.decode(member.note)
        return _server_view(server, _role(server, log.leader, note), note)

    def _longest_match(self, instance: int, eid: IPNetwork) -> tuple[IPNetwork, MappingRow] | None:
        mappings = self._machine.state.mappings
        for length in range(eid.prefixlen, -1, -1):
            prefix = eid.supernet(new_prefix=length)
            row = mappings.get((instance, prefix_to_bytes(prefix)))
            if row is not None:
                return prefix, row
        return None


def _enrol(enrolment: Enrolment, origin: Origin) -> Enrol:
    address = enrolment.control_address
    return Enrol(
        enrolment.name,
        enrolment.instance,
        tuple(map(prefix_to_bytes, enrolment.prefixes)),
        origin,
        control_key=bytes(enrolment.control_key or b""),
        control_address=address.packed if address is not None else b"",
        endpoint_allow=tuple(map(prefix_to_bytes, enrolment.endpoint_allow)),
        lisp_key=enrolment.lisp_key,
        lisp_auth=LISP_AUTH[enrolment.lisp_auth] if enrolment.lisp_key else 0,
    )


def _done(result: object) -> Done:
    match result:
        case Applied(Done() as done):
            return done
        case Applied(Refused() as refused):
            raise _ERRORS.get(refused.reason, ConflictError)(str(refused))
        case _:
            msg = f"the log returned {type(result).__name__} for an operator's command"
            raise TypeError(msg)


def _why_not(proposal: Proposal) -> str:
    reason = f" ({proposal.reason})" if proposal.reason else ""
    if proposal.outcome is Outcome.NOT_APPLIED:
        return f"not done: no quorum of servers took it{reason}; try again"
    return f"no quorum of servers confirmed it in time{reason}: it may yet take effect; try again"


def _role(server: str, leader: str | None, note: ServerNote | None) -> str:
    if server == leader:
        return Role.LEADER.value
    candidate = note is not None and note.candidate
    return Role.CANDIDATE.value if candidate else Role.FOLLOWER.value


def _applied(member: MemberStatus | None) -> int:
    note = ServerNote.decode(member.note) if member is not None else None
    return note.applied if note is not None else -1


def _server_view(name: str, state: str, note: ServerNote | None) -> ServerView:
    return {
        "name": name,
        "state": state,
        "applied": note.applied if note else None,
        "fresh": note.fresh if note else None,
        "reachable_agents": note.reachable_agents if note else None,
    }
