"""What the service wants done, in order."""

from typing import NamedTuple, TypeAlias

from wgmap_cluster.feed import Source, ToReplica


class Send(NamedTuple):
    """Send a datagram from port 4342."""

    destination: Source
    datagram: bytes


class Again(NamedTuple):
    """Serve a refresh in its turn: its barrier came, and may be built upon until a time."""

    data: bytes
    source: Source
    until: float


class Tell(NamedTuple):
    """Tell the replica something; left out where it does not listen."""

    message: ToReplica


Action: TypeAlias = Send | Again | Tell
