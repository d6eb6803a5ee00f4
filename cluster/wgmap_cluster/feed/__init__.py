"""What replica and responder say to each other, over a named SOCK_SEQPACKET socket.

``messages`` are the values, ``codec`` their bytes, ``transport`` the two ends of the socket.
"""

from wgmap_cluster.feed.codec import FeedError, decode, encode
from wgmap_cluster.feed.messages import (
    MAX_PACKET,
    SOCKET_NAME,
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    FeedMessage,
    Forward,
    Lease,
    ResponderNote,
    Rows,
    Source,
    TableBegin,
    TableEnd,
    ToReplica,
    ToResponder,
)
from wgmap_cluster.feed.transport import Connection, FeedClosedError, FeedServer, connect

__all__ = [
    "MAX_PACKET",
    "SOCKET_NAME",
    "Answer",
    "Attach",
    "Barrier",
    "BarrierDone",
    "Changes",
    "Connection",
    "FeedClosedError",
    "FeedError",
    "FeedMessage",
    "FeedServer",
    "Forward",
    "Lease",
    "ResponderNote",
    "Rows",
    "Source",
    "TableBegin",
    "TableEnd",
    "ToReplica",
    "ToResponder",
    "connect",
    "decode",
    "encode",
]
