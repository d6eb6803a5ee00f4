"""While servers are upgraded one by one: a new command is used only when every server reads it.

A server that met a command it does not read would have to stop (``fsm.commands``). Each says in
its note what it reads; one that is silent is taken for an old one.
"""

from collections.abc import Iterable, Mapping

from wgmap.errors import UnavailableError
from wgmap_cluster.raft.interface import Member, MemberStatus
from wgmap_cluster.replica.notes import ServerNote


class NotAllReadError(UnavailableError):
    """Some member of the cluster does not read a command yet, or is not known to."""


def require_all_read(
    version: int, own: str, members: Iterable[Member], others: Mapping[str, MemberStatus]
) -> None:
    """See to it that all members read a version of commands; raises NotAllReadError."""
    names = (member.name for member in members if member.name != own)
    behind = sorted(name for name in names if _reads(others.get(name)) < version)
    if behind:
        raise NotAllReadError(f"not every server knows this yet; upgrade {', '.join(behind)}")


def _reads(member: MemberStatus | None) -> int:
    note = ServerNote.decode(member.note) if member is not None else None
    return 1 if note is None else note.reads
