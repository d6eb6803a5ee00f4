"""A log in memory with other servers around it, for what operators see and wait for."""

from dataclasses import replace

from support.log import MemoryLog
from wgmap import __version__
from wgmap_cluster.raft.interface import (
    LogStatus,
    MemberStatus,
    Outcome,
    Proposal,
    Role,
    StateMachine,
)
from wgmap_cluster.replica.notes import ANSWERS, ServerNote


class ClusterLog(MemoryLog):
    """The log of ``ms1``, which leads; ``followers`` apply at once what it applies.

    With ``loses_answers`` a command is applied and nobody hears of it: the end is UNKNOWN.
    """

    def __init__(self, machine: StateMachine) -> None:
        super().__init__(machine)
        self.loses_answers = False
        self.role = Role.LEADER
        self.leader: str | None = "ms1"
        self.others: dict[str, MemberStatus] = {}
        self.followers: set[str] = set()

    @property
    def index(self) -> int:
        """The index of the last command."""
        return len(self.commands)

    async def propose(self, command: bytes, deadline_s: float = 1.5) -> Proposal:
        """Apply here and on the followers."""
        proposal = await super().propose(command, deadline_s)
        for name in self.followers:
            self.hear(name, self.index)
        if self.loses_answers:
            return Proposal(Outcome.UNKNOWN, reason="no answer")
        return proposal

    def status(self) -> LogStatus:
        """Return what was set."""
        return LogStatus(self.role, self.leader, 3, self.index, self.index, self.index, self.others)

    def hear(
        self,
        name: str,
        applied: int,
        *,
        fresh: bool = True,
        agents: int = 0,
        served: int | None = None,
    ) -> None:
        """Have another server's note arrive; its responder has the same unless told otherwise."""
        seen = applied if served is None else served
        note = ServerNote(
            *(applied, fresh, agents), served=seen, answers=ANSWERS, release=__version__
        ).encode()
        self.others[name] = MemberStatus(name, connected=True, note=note, heard_s=0.0)

    def lose(self, name: str) -> None:
        """Cut another server off; its last note stays."""
        self.others[name] = replace(self.others[name], connected=False, heard_s=9.0)
        self.followers.discard(name)
