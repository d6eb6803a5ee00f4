"""Responders that know whom they told, as a test says."""

import asyncio

from wgmap.clock import now
from wgmap_cluster.feed import Contact


class Responders:
    """What a feeder is to the parts that ask it."""

    def __init__(self, *contacts: Contact) -> None:
        self.known: list[Contact] | None = list(contacts)  # None: nobody answers

    def tell(self, agent: str, subject: str, ago_s: float = 0.0, state: str = "heard") -> None:
        """Have an agent have been told of a peer."""
        assert self.known is not None
        self.known.append(Contact(agent, subject, now() - ago_s, state))

    async def contacts(self, peer: str, other: str, most: int) -> list[Contact] | None:
        await asyncio.sleep(0)
        wanted = {peer, other} - {""}
        if self.known is None:
            return None
        found = [one for one in self.known if wanted <= {one.agent, one.subject}]
        return sorted(found, key=lambda one: -one.at)[:most]
