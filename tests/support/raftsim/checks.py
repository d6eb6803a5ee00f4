"""What must hold after every step of a simulation, whatever went wrong."""

from dataclasses import dataclass, field

from wgmap_cluster.raft import messages
from wgmap_cluster.raft.codec import decode
from wgmap_cluster.raft.interface import Outcome, Proposal
from wgmap_cluster.raft.node import RaftNode


class ViolationError(BaseException):
    """An invariant is broken; not to be caught by the guard around apply."""


@dataclass
class Checks:
    """The history of a run, and the invariants over it."""

    applied: dict[int, bytes] = field(default_factory=dict)  # index -> command, of any server
    where: dict[bytes, int] = field(default_factory=dict)
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    last_acknowledged: int = 0
    refused: set[bytes] = field(default_factory=set)
    leaders: dict[int, str] = field(default_factory=dict)  # term -> who led it
    by_term: dict[int, int] = field(default_factory=dict)  # index -> applied first in this term
    votes: dict[tuple[str, int], str] = field(default_factory=dict)  # (voter, term) -> for whom
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def require(self, condition: bool, text: str) -> None:
        if not condition:
            raise ViolationError(text)

    # State machine safety: one command per index, once, and never one that was refused.
    def on_apply(self, server: str, index: int, command: bytes) -> None:
        known = self.applied.setdefault(index, command)
        self.by_term.setdefault(index, max(self.leaders, default=0))
        self.require(known == command, f"{server} applied {command!r} at {index}, not {known!r}")
        self.where.setdefault(command, index)
        self.require(command not in self.refused, f"{command!r} was NOT_APPLIED, is at {index}")

    def on_restore(self, server: str, rows: list[tuple[int, bytes]]) -> None:
        self.count("restores")
        last = max((index for index, _ in rows), default=0)
        wanted = [(i, c) for i, c in sorted(self.applied.items()) if i <= last]
        odd = sorted(set(rows) ^ set(wanted))
        self.require(rows == wanted, f"{server} restored what never was (up to {last}): {odd}")

    # A vote is given once in a term, over any number of restarts.
    def on_frame(self, sender: str, receiver: str, data: bytes) -> None:
        match decode(data):
            case messages.VoteReply(term=term):
                self._voted(sender, term, receiver)
            case messages.RequestVote(term=term):
                self._voted(sender, term, sender)
            case messages.Install():
                self.count("chunks")
            case _:
                pass

    def _voted(self, voter: str, term: int, candidate: str) -> None:
        known = self.votes.setdefault((voter, term), candidate)
        self.require(known == candidate, f"{voter} voted {known} and {candidate} in term {term}")

    # One leader in a term; it has all that was ever acknowledged.
    def on_leader(self, node: RaftNode) -> None:
        known = self.leaders.get(node.term)
        self.require(known in (None, node.name), f"{known} and {node.name} lead term {node.term}")
        if known is None:
            self.leaders[node.term] = node.name
            self._complete(node)

    def _complete(self, node: RaftNode) -> None:
        """A late leader of an old term need not have what later ones committed meanwhile."""
        first, held = node.wal.first, {index: command for command, index, _ in node.wal.entries}
        for index, command in self.applied.items():
            if index > first and self.by_term[index] <= node.term:
                text = f"leader {node.name} of term {node.term} lacks {command!r} at {index}"
                self.require(held.get(index, b"")[1:] == command, text)

    # Proposals and reads keep their word.
    def on_outcome(self, command: bytes, proposal: Proposal) -> None:
        self.count(proposal.outcome.value)
        if proposal.outcome is Outcome.APPLIED:
            index = proposal.index
            self.require(self.applied.get(index) == command, f"{command!r} is not at {index}")
            self.require(proposal.result == ("at", index, command), "the result of another command")
            self.acknowledged[index] = command
            self.last_acknowledged = max(self.last_acknowledged, index)
        elif proposal.outcome is Outcome.NOT_APPLIED:
            at = self.where.get(command)
            self.require(at is None, f"{command!r} was NOT_APPLIED ({proposal.reason}), is at {at}")
            self.refused.add(command)

    def on_read(self, node: RaftNode, at: int | None, floor: int) -> None:
        self.count("reads" if at is not None else "reads refused")
        if at is not None:
            self.require(at >= floor, f"{node.name} read at {at}, {floor} was acknowledged before")
            self.require(node.applied >= at, f"{node.name} read at {at}, applied {node.applied}")

    def on_step(self, node: RaftNode, before: tuple[int, int, int]) -> None:
        term, commit, applied = before
        self.require(node.term >= term, f"{node.name}: term back from {term} to {node.term}")
        self.require(node.commit >= commit, f"{node.name}: commit back from {commit}")
        self.require(node.applied >= applied, f"{node.name}: applied back from {applied}")
        self.require(node.applied <= node.commit <= node.wal.last, f"{node.name}: beyond its log")
        if node.leading:
            self.on_leader(node)

    def logs_match(self, nodes: list[RaftNode]) -> None:
        """Equal index and term: equal command."""
        known: dict[tuple[int, int], bytes] = {}
        for node in nodes:
            for command, index, term in node.wal.entries[1:]:
                text = f"two entries {index} of term {term}"
                self.require(known.setdefault((index, term), command) == command, text)
