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
    Contact,
    FeedMessage,
    Forward,
    Known,
    Lease,
    ResponderNote,
    Rows,
    Source,
    TableBegin,
    TableEnd,
    ToReplica,
    ToResponder,
    WhoKnows,
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
    "Contact",
    "FeedClosedError",
    "FeedError",
    "FeedMessage",
    "FeedServer",
    "Forward",
    "Known",
    "Lease",
    "ResponderNote",
    "Rows",
    "Source",
    "TableBegin",
    "TableEnd",
    "ToReplica",
    "ToResponder",
    "WhoKnows",
    "connect",
    "decode",
    "encode",
]
