"""What operators can do, whichever way they ask (today: the admin socket).

Reading is done on this server's state. Changing is a command of the replicated log; whether it
is allowed is decided where it is applied, so that every server decides alike.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from wgmap.addresses import IPAddress, IPNetwork, prefix_to_bytes
from wgmap.clock import now
from wgmap.errors import (
    ChangedError,
    ConfigError,
    ConflictError,
    LimitError,
    NotFoundError,
    UnavailableError,
    WgmapError,
)
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.fsm.commands import (
    Command,
    CommandError,
    EnrolMany,
    Origin,
    Revoke,
    SetInstance,
)
from wgmap_cluster.fsm.digest import digest
from wgmap_cluster.fsm.instances import tag
from wgmap_cluster.fsm.limits import instance_limit, peer_limit
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied, Done, Reason, Refused
from wgmap_cluster.fsm.rows import InstanceRow, MappingRow, Meta, PeerRow
from wgmap_cluster.raft.interface import (
    ClusterLog,
    LogStatus,
    MemberStatus,
    Outcome,
    Proposal,
    Role,
)
from wgmap_cluster.replica import agent_config
from wgmap_cluster.replica.archive import Archive
from wgmap_cluster.replica.browsing import Browser
from wgmap_cluster.replica.contacts import Contacts, Responders
from wgmap_cluster.replica.events import EventHub
from wgmap_cluster.replica.history import History
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.proposing import Proposer
from wgmap_cluster.replica.requests import Enrolment, PeerChange, enrol_command, set_command
from wgmap_cluster.replica.servers import Servers
from wgmap_cluster.replica.views import (
    AddedView,
    AuditView,
    CountersView,
    DigestView,
    ImportedView,
    InstanceView,
    MappingRowView,
    PeerDetailView,
    PeerView,
    ResolveView,
    RevocationsView,
    RevokedView,
    ServerView,
    SetView,
    StatusView,
    audit_view,
    key_text,
    lisp_auth_name,
    locator_views,
    mapping_row_view,
    mapping_view,
    no_counters,
    peer_view,
    prefix_texts,
    revocation_view,
)

MAX_REVOCATIONS = 1000  # in one answer
POLL_S = 0.02  # how often others' notes are looked at while a revocation spreads

_ERRORS: dict[Reason, type[WgmapError]] = {
    Reason.BAD_COMMAND: ConfigError,
    Reason.PREFIX_RESERVED: ConfigError,
    Reason.INVALID: ConfigError,
    Reason.LIMIT: LimitError,
    Reason.CHANGED: ChangedError,
    Reason.RESTORING: UnavailableError,
    Reason.UNKNOWN_PEER: NotFoundError,
    Reason.UNKNOWN_SERVER: NotFoundError,
    Reason.NOT_FOUNDED: UnavailableError,
}


class Operations:
    """Implements them over the state machine and the log of one server.

    All methods raise WgmapErrors: ConfigError for a request that is wrong in itself,
    ConflictError and NotFoundError where it does not fit the state, UnavailableError without a
    quorum (the request may then still take effect, as the text says; repeating it is harmless).
    """

    def __init__(  # noqa: PLR0913  # what a server is made of
        self,
        name: str,
        machine: Machine,
        log: ClusterLog,
        note: Callable[[], ServerNote],
        staleness_s: float,
        state_dir: Path | None = None,
        *,
        config: ServerConfig | None = None,
        counters: Callable[[], CountersView] = no_counters,
        responders: Responders | None = None,
    ) -> None:
        """Act for server ``name``; ``note`` returns what it publishes about itself.

        ``state_dir`` is where its keys lie; without it they cannot be put in a backup. Without
        ``config`` no server can be added. ``counters``: see CountersView. ``responders``: who
        knows whom it told; without them others are asked alone.
        """
        self._name = name
        self._machine = machine
        self._log = log
        self._proposer = Proposer(name, log)
        self._note = note
        self._staleness_s = staleness_s
        self.counters = counters
        self.browser = Browser(machine)
        self.history = History(counters)
        self.contacts = Contacts(name, log, responders)
        self.events = EventHub(machine, log)
        self.archive = Archive(name, machine, log, self._do, state_dir)
        self.servers = Servers(name, machine, log, self._do, config)

    # Peers.

    async def add_peer(self, enrolment: Enrolment, operator: str, wall: str) -> AddedView:
        """Enrol a peer; the same once more changes nothing and succeeds."""
        done, _ = await self._do(enrol_command(enrolment, Origin(self._name, operator, wall)))
        row = self._peer(enrolment.name)
        return {
            "peer": self._peer_view(enrolment.name, row),
            "config": self._agent_config(enrolment.name, row),
            "changed": done.changed,
        }

    async def set_peer(self, name: str, change: PeerChange, operator: str, wall: str) -> SetView:
        """Change a peer; mappings outside its new prefixes go at once, and with a new key all.

        ChangedError where it is not at the revision that is asked for.
        """
        if change.lisp_auth and not (change.lisp_key or self._peer(name).lisp_key):
            raise ConfigError("lisp_auth: the peer has no LISP key")
        done, _ = await self._do(set_command(name, change, Origin(self._name, operator, wall)))
        return {"peer": self.peer(change.new_name or name), "changed": done.changed}

    async def import_peers(
        self, enrolments: Sequence[Enrolment], operator: str, wall: str
    ) -> ImportedView:
        """Enrol all of these or none, as one command; the same again changes nothing.

        An error carries the ``position`` of the enrolment that is at fault.
        """
        origin = Origin(self._name, operator, wall)
        peers = tuple(enrol_command(each, origin).peer() for each in enrolments)
        done, _ = await self._do(EnrolMany(peers, origin))
        return {"enrolled": done.count, "unchanged": len(peers) - done.count}

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
            "limit": peer_limit(row),
            "revision": row.revision,
            "revocation": self._revocation_of(name) if row.revoked else None,
            "mappings": [mapping_view(prefix, mapping) for (_, prefix), mapping in held],
        }

    async def revoke_peer(
        self, name: str, operator: str, wall: str, revision: int | None = None
    ) -> RevokedView:
        """Shut a peer out; returns when every server answers by it, or after 2 S.

        With ``revision`` only that one is revoked, else ChangedError. S is the staleness bound:
        after twice that time a server which has not applied it gives no answer with authority
        any more.
        """
        began, origin = now(), Origin(self._name, operator, wall)
        _, proposal = await self._do(Revoke(name, origin, revision))
        unconfirmed = await self._spread(proposal.index, 2 * self._staleness_s)
        confirmed = [server for server in self._servers() if server not in unconfirmed]
        took_s = round(now() - began, 3)
        return {
            "name": name,
            "took_s": took_s,
            "confirmed": confirmed,
            "unconfirmed": unconfirmed,
        }

    def revocations(self, since: int = 0, most: int = MAX_REVOCATIONS) -> RevocationsView:
        """Say what was revoked after number ``since``, oldest first, at most ``most`` of them.

        What a server tells an agent that was away: the agent keeps ``last`` once ``more`` is
        false, and asks from there the next time.
        """
        state = self._machine.state
        found = state.revoked_since(since, most)
        last = found[-1][0] if found else state.revocation
        return {
            "last": state.revocation,
            "more": last < state.revocation,
            "revocations": [revocation_view(number, row) for number, row in found],
        }

    def mapping(self, instance: int, prefix: IPNetwork) -> MappingRowView:
        """Show the mapping of exactly this prefix."""
        key = (instance, prefix_to_bytes(prefix))
        row = self._machine.state.mappings.get(key)
        if row is None:
            raise NotFoundError(f"no mapping of {prefix} in instance {instance}")
        return mapping_row_view(key, row)

    # Instances.

    def instances(self) -> list[InstanceView]:
        """Show the instances that have peers, mappings or values of their own."""
        peers = self._peers_of_instances()
        numbers = sorted({0, *peers, *self._machine.state.instances})
        return [self._instance_view(number, peers[number]) for number in numbers]

    def instance(self, number: int) -> InstanceView:
        """Show one instance; each number is one."""
        return self._instance_view(number, self._peers_of_instances()[number])

    def _peers_of_instances(self) -> Counter[int]:
        peers = self._machine.state.peers.values()
        return Counter(row.instance for row in peers if not row.revoked)

    def _instance_view(self, number: int, peers: int) -> InstanceView:
        state = self._machine.state
        row = state.instances.get(number, InstanceRow())
        return {
            "instance": number,
            "overlay": [str(each) for each in state.overlay_of(number)],
            "own_overlay": bool(row.overlay),
            "peers": peers,
            "mappings": state.size(number),
            "max_mappings": instance_limit(state, number),
            "tag": tag(row),
        }

    async def set_instance(
        self,
        instance: int,
        overlay: tuple[IPNetwork, ...] | None,
        max_mappings: int | None,
        origin: tuple[str, str],
        if_tag: int | None = None,
    ) -> InstanceView:
        """Set an instance's overlay (empty: the cluster's) and limit (0: the default).

        ``origin``: the operator and its wall clock. ChangedError where its values are not those of
        the tag that is asked for.
        """
        prefixes = None if overlay is None else tuple(map(prefix_to_bytes, overlay))
        who = Origin(self._name, *origin)
        await self._do(SetInstance(instance, who, prefixes, max_mappings, if_tag))
        return self.instance(instance)

    # The cluster.

    def audit(self, since: int | None = None, most: int = 100) -> list[AuditView]:
        """Show what operators did: after number ``since``, or without it the last ``most``."""
        state = self._machine.state
        last = int(state.meta.get(Meta.AUDITED, 0))
        first = max(last - most, 0) if since is None else since
        first = max(first, last - len(state.audit))  # older ones are gone
        numbers = range(first + 1, min(first + most, last) + 1)
        return [audit_view(n, state.audit[n]) for n in numbers if n in state.audit]

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
            "revoked": counts.revoked,
            "revocation": state.revocation,
            "mappings": counts.mappings,
            "restoring": Meta.RESTORING in state.meta,
        }

    async def digest(self) -> DigestView:
        """Sum this server's replicated state up, in a thread: the copy is what costs the loop."""
        applied, copies = self._machine.index, self._machine.copies()
        value = await asyncio.to_thread(digest, copies)
        return {"applied": applied, "digest": value.hex()}

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
            proposal = await self._proposer.propose(command)
        except CommandError as error:
            raise ConfigError(str(error)) from error
        if proposal.outcome is not Outcome.APPLIED:
            raise UnavailableError(_why_not(proposal))
        return _done(proposal.result), proposal

    async def _spread(self, index: int, wait_s: float) -> list[str]:
        """Wait until every server answers by ``index``; return those that do not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while (behind := self._behind(index)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)  # the log tells of notes by no event
        return behind

    def _revocation_of(self, name: str) -> int | None:
        rows = self._machine.state.revocations.items()
        return next((number for number, row in rows if row.peer == name), None)

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
        return agent_config.render(
            name, row, state.servers, state.overlay_of(row.instance), control_prefix
        )

    def _servers(self) -> list[str]:
        return sorted({self._name, *self._machine.state.servers, *self._log.status().others})

    def _behind(self, index: int) -> list[str]:
        """Return the servers that are not known to answer by the command at ``index``."""
        others = self._log.status().others
        return [server for server in self._servers() if self._served(server, others) < index]

    def _served(self, server: str, others: Mapping[str, MemberStatus]) -> int:
        """Return the index that replica and responders of a server are known to have."""
        if server == self._name:
            note: ServerNote | None = self._note()
        else:
            member = others.get(server)
            note = ServerNote.decode(member.note) if member is not None else None
        return -1 if note is None or note.served is None else min(note.applied, note.served)

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


def _done(result: object) -> Done:
    match result:
        case Applied(Done() as done):
            return done
        case Applied(Refused() as refused):
            error = _ERRORS.get(refused.reason, ConflictError)(str(refused))
            error.position = refused.position
            raise error
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


def _server_view(name: str, state: str, note: ServerNote | None) -> ServerView:
    return {
        "name": name,
        "state": state,
        "applied": note.applied if note else None,
        "fresh": note.fresh if note else None,
        "reachable_agents": note.reachable_agents if note else None,
        "release": note.release if note else None,
    }
