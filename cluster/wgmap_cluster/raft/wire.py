"""What a server of the log wants of the connections with the others."""

from typing import Protocol

from wgmap_cluster.raft.interface import Member


class Wire(Protocol):
    """Carries frames to other servers; unreliable, in order per connection."""

    def send(self, name: str, frame: bytes) -> None:
        """Send a frame, or drop it where there is no connection."""
        ...

    def connected(self, name: str) -> bool:
        """Tell whether there is a connection."""
        ...

    def backlog(self, name: str) -> int:
        """Return how many bytes wait to be sent."""
        ...

    def flush(self) -> None:
        """Pass on to the system what send() collected."""
        ...

    def drop(self, name: str, reason: str) -> None:
        """Close the connection: what comes over it makes no sense."""
        ...

    def set_members(self, members: tuple[Member, ...]) -> None:
        """Accept and seek connections with these servers and no other."""
        ...
