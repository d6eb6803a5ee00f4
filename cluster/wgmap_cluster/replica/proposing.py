"""The one way for commands into the log; here it is decided whether a command may be proposed.

While servers are upgraded one by one, a new command is used only when every server reads it: one
that met a command it does not read would have to stop (``fsm.commands``). Each says in its note
what it reads; one that is silent is taken for an old one.
"""

from collections.abc import Iterable, Mapping

from wgmap.errors import UnavailableError
from wgmap_cluster.fsm.commands import Command, encode, version_of
from wgmap_cluster.raft.interface import ClusterLog, Member, MemberStatus, Proposal
from wgmap_cluster.replica.notes import ServerNote


class NotReadByAllError(UnavailableError):
    """Some server has to be upgraded before this command may be used."""


class Proposer:
    """Proposes the commands of one server: of agents, of operators and of its housekeeping."""

    def __init__(self, name: str, log: ClusterLog) -> None:
        """``name`` is this server, which reads whatever it proposes."""
        self._name = name
        self._log = log

    async def propose(self, command: Command, deadline_s: float = 1.5) -> Proposal:
        """Have a command committed and applied here; see ReplicatedLog.propose.

        Raises NotReadByAllError, and CommandError for what is larger than the log takes: in both
        cases nothing was proposed.
        """
        version = version_of(command)
        if version > 1:
            require_all_read(version, self._name, self._log.members(), self._log.status().others)
        return await self._log.propose(encode(command), deadline_s)


def require_all_read(
    version: int, own: str, members: Iterable[Member], others: Mapping[str, MemberStatus]
) -> None:
    """See to it that all members read a version of commands; raises NotReadByAllError."""
    names = (member.name for member in members if member.name != own)
    behind = sorted(name for name in names if _reads(others.get(name)) < version)
    if behind:
        raise NotReadByAllError(f"not every server knows this yet; upgrade {', '.join(behind)}")


def _reads(member: MemberStatus | None) -> int:
    note = ServerNote.decode(member.note) if member is not None else None
    return 1 if note is None else note.reads
