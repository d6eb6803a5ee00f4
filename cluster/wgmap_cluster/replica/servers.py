"""The set of servers as operators change it: the log's members and the table of servers in step.

Two records say who the servers are. The members of the log vote; the table (``Table.SERVERS``)
gives the mesh its tunnels and agents their servers. They change one after the other, in the order
that leaves something harmless behind if this server dies in between:

- Adding: the table first. The others open their tunnels to the new server by it, and without these
  it could not catch up; it votes only once it has. In between it is a row that nobody counts on.
- Removing: the log first. As long as a server votes, the others must reach it. In between it is a
  row whose server is no more asked for its vote.

Either way the same request once more finishes the work, on any server.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from wgmap.addresses import Endpoint
from wgmap.errors import ConfigError, ConflictError, NotFoundError, UnavailableError
from wgmap_cluster.config import BootstrapServer, ServerConfig
from wgmap_cluster.fsm.commands import Command, Origin, RemoveServer, SetServer
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.rows import ServerRow
from wgmap_cluster.raft.interface import (
    ClusterLog,
    LogStatus,
    Member,
    Outcome,
    Proposal,
    RefusedError,
)
from wgmap_cluster.replica.founding import server_row
from wgmap_cluster.replica.views import LeaderView, MemberView, ServerSetView, key_text

CATCH_UP_S = 120.0  # for a new server to get the whole log
CHANGE_S = 10.0


class Servers:
    """Lists, adds and removes servers, and has another one lead.

    Methods raise WgmapErrors, as those of Operations do.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        log: ClusterLog,
        do: Callable[[Command], Awaitable[Any]],
        config: ServerConfig | None = None,
    ) -> None:
        """``do`` proposes a command and raises what operators are told.

        Without ``config`` nothing can be added: it tells the ports of the others.
        """
        self._name, self._machine, self._log, self._do = name, machine, log, do
        self._config = config

    def show(self) -> ServerSetView:
        """Show every server that is in the table or a member of the log."""
        rows = self._machine.state.servers
        members = {member.name for member in self._log.members()}
        status = self._log.status()
        names = sorted({*rows, *members})
        return {
            "leader": status.leader,
            "servers": [self._view(n, rows.get(n), n in members, status) for n in names],
        }

    def _view(
        self,
        name: str,
        row: ServerRow | None,
        member: bool,
        status: LogStatus,
    ) -> MemberView:
        other = status.others.get(name)
        return {
            "name": name,
            "leader": status.leader == name,
            "member": member,
            "connected": name == self._name or (other is not None and other.connected),
            "endpoint": _endpoint(row),
            "mesh_address": str(ip_address(row.mesh_address)) if row else None,
            "control_address": str(ip_address(row.control_address)) if row else None,
            "mesh_key": key_text(row.mesh_key) if row else None,
            "control_key": key_text(row.control_key) if row else None,
        }

    async def add(self, server: BootstrapServer, operator: str, wall: str) -> ServerSetView:
        """Add a server, which runs with an empty state; returns once it votes.

        ConflictError for a server of that name with other values: remove it first.
        """
        if self._config is None or self._config.mesh is None:
            raise ConfigError("this server has no [mesh]: it cannot have company")
        row = server_row(self._config, server)
        if self._machine.state.servers.get(server.name, row) != row:
            raise ConflictError(f"{server.name} is there with other values; remove it first")
        await self._do(SetServer(server.name, row, Origin(self._name, operator, wall)))
        address = Endpoint(server.mesh_address, self._config.mesh.raft_port)
        member = Member(server.name, str(address))
        done = await self._log.add_member(member, CATCH_UP_S)
        _require(done, f"{server.name} is in the table of servers and does not vote yet")
        return self.show()

    async def remove(self, name: str, operator: str, wall: str) -> ServerSetView:
        """Remove a server; the leader hands over first. NotFoundError where there is none."""
        rows, members = self._machine.state.servers, self._log.members()
        if name not in rows and name not in {member.name for member in members}:
            raise NotFoundError(f"no server is called {name!r}")
        if name == self._name:
            raise ConflictError(f"{name} cannot remove itself: ask another server")
        if len(members) == 1 and members[0].name == name:
            raise ConflictError("the last server cannot be removed")
        if self._log.status().leader == name:
            await self.hand_over(None)
        done = await self._log.remove_member(name, CHANGE_S)
        _require(done, f"{name} is not removed")
        if name in rows:
            await self._do(RemoveServer(name, Origin(self._name, operator, wall)))
        return self.show()

    async def hand_over(self, target: str | None) -> LeaderView:
        """Have ``target``, or whoever fits, lead."""
        if target is not None and target not in {member.name for member in self._log.members()}:
            raise NotFoundError(f"no server is called {target!r}")
        before = self._log.status().leader
        try:
            leader = await self._log.hand_over(target)
        except RefusedError as error:
            raise UnavailableError(f"leadership was not handed over: {error}") from error
        return {"leader": leader, "before": before}


def _require(proposal: Proposal, what: str) -> None:
    if proposal.outcome is not Outcome.APPLIED:
        reason = proposal.reason or proposal.outcome.value
        raise UnavailableError(f"{what} ({reason}); the same request again goes on with it")


def _endpoint(row: ServerRow | None) -> str | None:
    return str(Endpoint(ip_address(row.underlay), row.control_port)) if row else None
