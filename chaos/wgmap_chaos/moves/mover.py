"""Gives agents other underlay addresses."""

import asyncio
import itertools
from collections.abc import Sequence

from wgmap.addresses import IPAddress
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.programs import ProgramError

STEP = 50  # agents have .11 and up, servers .1 to .9: three more places for each of 39 agents
PLACES = 4


class Mover:
    """One agent and where it is now; a move changes every address, in one batch, new first."""

    def __init__(self, agent: AgentEntry) -> None:
        self.agent = agent
        self._place = 0

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The underlay addresses as they are now."""
        return tuple(address + self._place * STEP for address in self.agent.underlay)

    async def move(self) -> None:
        """Go on to the next of the agent's places; raises ProgramError."""
        await self._go((self._place + 1) % PLACES)

    async def back(self) -> None:
        """Go back to the place before; raises ProgramError."""
        await self._go((self._place - 1) % PLACES)

    async def home(self) -> None:
        """Go to the first place; raises ProgramError."""
        if self._place:
            await self._go(0)

    async def _go(self, place: int) -> None:
        before, self._place = self.addresses, place
        await replace(self.agent, before, self.addresses)


async def replace(agent: AgentEntry, old: Sequence[IPAddress], new: Sequence[IPAddress]) -> None:
    """Give underlay addresses up for others, the new ones first, in one batch.

    Raises ProgramError.
    """
    pairs = zip(old, new, strict=True)
    lines = itertools.chain.from_iterable(_lines(agent, *pair) for pair in pairs)
    process = await asyncio.create_subprocess_exec(
        "ip", "-n", agent.netns, "-batch", "-", stdin=asyncio.subprocess.PIPE
    )
    await process.communicate("\n".join(lines).encode() + b"\n")
    if process.returncode:
        msg = f"{agent.name}: ip -batch: exit code {process.returncode}"
        raise ProgramError(msg)


def _lines(agent: AgentEntry, old: IPAddress, new: IPAddress) -> tuple[str, str]:
    length, options = (24, "") if old.version == 4 else (64, " nodad")
    return (
        f"addr add {new}/{length} dev {agent.underlay_port}{options}",
        f"addr del {old}/{length} dev {agent.underlay_port}",
    )
