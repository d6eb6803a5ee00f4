"""The steps of the demo; each says what it measured and whether it held."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap_chaos.demo.ping import first_reply_ms
from wgmap_chaos.demo.timeline import FirstContact, Timeline
from wgmap_chaos.flow import Flow
from wgmap_chaos.lab import inventory
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.moves.mover import replace
from wgmap_chaos.programs import ProgramError, ask, run

LAB_FILE = "lab.json"
CONTACT_LIMIT_MS = 1000.0
MOVE_LIMIT_S = 2.0
ELECTION_LIMIT_S = 10.0


class Demo:
    """A lab, what was measured in it, and which steps did not hold."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say
        self.lab = inventory.read(directory / LAB_FILE)
        self.timeline = Timeline(now())
        self.failures: list[str] = []

    async def run(self) -> None:
        """Run every step; a step that breaks off counts as one that did not hold."""
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("First contacts of a1, one packet each", self.first_contacts),
            ("A mapping, asked from every server", self.resolve_everywhere),
            ("The leader is killed (SIGKILL) under a flow and first contacts", self.leader_killed),
            ("Both ends of a tunnel move at the same moment", self.both_move),
        ]
        for title, step in steps:
            self._say(f"\n{title}")
            try:
                await step()
            except (ProgramError, subprocess.SubprocessError, OSError) as error:
                self.check(f"{title}: {error}", held=False)

    def check(self, text: str, *, held: bool) -> None:
        """Print one measured line; what did not hold is kept."""
        self._say(f"  {'ok  ' if held else 'FAIL'} {text}")
        if not held:
            self.failures.append(text)

    # ------------------------------------------------------------------------------ steps

    async def first_contacts(self) -> None:
        """a1 pings everyone in both families; which family comes first alternates."""
        first, *others = self.lab.agents
        for turn, other in enumerate(others):
            eids = other.eids if turn % 2 == 0 else list(reversed(other.eids))
            await self._contact(first, other, eids[0], "no tunnel yet", first=True)
            await self._contact(first, other, eids[1], "other family, same tunnel", first=False)

    async def resolve_everywhere(self) -> None:
        """Every server knows a2's mapping, and says the same."""
        eid = str(self.lab.agents[1].eids[0])
        answers = []
        for server in self.lab.servers:
            told = ask("wgmap", "--socket", str(server.admin_socket), "resolve", eid)
            answers.append((told["key"], told["version"]))
            where = ", ".join(f"{loc['address']}:{loc['port']}" for loc in told["locators"])
            self.check(
                f"{server.name}: {eid} -> {told['key']} at {where} (version {told['version']}, "
                f"fresh {told['fresh']})",
                held=bool(told["found"] and told["fresh"]),
            )
        self.check("all servers say the same", held=len(set(answers)) == 1)

    async def leader_killed(self) -> None:
        """Lose nothing of an established flow; let new pairs meet while there is no leader."""
        leader = self._leader()
        a1, a2, a3, a4 = self.lab.agents[:4]
        async with self._flow("a1-a2, leader killed", a1, a2) as flow:
            await asyncio.sleep(0.5)  # the flow before the fault, for the picture
            killed = now()
            for pid in self.lab.server(leader).pids.values():
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            self.timeline.events.append((killed, f"leader {leader} killed"))
            pairs = ((a2, a3), (a3, a4), (a4, a2))
            await asyncio.gather(
                *(
                    self._contact(one, two, two.eids[turn % 2], "leader just killed", first=True)
                    for turn, (one, two) in enumerate(pairs)
                )
            )
            new, took = await self._wait_for_leader(leader, killed)
            self.timeline.events.append((now(), f"{new} leads"))
        self.check(
            f"{new} leads {took:.2f} s after {leader} was killed", held=took < ELECTION_LIMIT_S
        )
        record = flow.record
        self.check(
            f"established flow a1-a2 over {len(record.sent)} packets: {record.lost} lost",
            held=record.lost == 0,
        )
        run("wgmap-chaos", "lab", "start-servers", "--dir", str(self._directory), timeout_s=90)
        self.lab = inventory.read(self._directory / LAB_FILE)
        self.timeline.events.append((now(), f"{leader} started again"))
        state = self._states().get(leader)
        self.check(f"{leader} is back as {state}", held=state in ("leader", "follower"))

    async def both_move(self) -> None:
        """Both underlay addresses change at once; the flow goes on by itself."""
        a1, a2 = self.lab.agents[:2]
        async with self._flow("a1-a2, both move", a1, a2) as flow:
            await asyncio.sleep(0.5)  # the flow before the fault, for the picture
            moved = now()
            self.timeline.events.append((moved, "a1 and a2 move"))
            await asyncio.gather(_move(a1, 100), _move(a2, 100))
            await self._wait(lambda: any(at > now() - 0.1 and at > moved + 0.2
                                         for at in flow.record.returned.values()), 20)  # fmt: skip
            await asyncio.sleep(1.0)  # the flow after it, for the picture
        gap = flow.record.longest_gap_s
        self.check(
            f"both endpoints changed: the flow was silent for {gap * 1e3:.0f} ms "
            f"({flow.record.lost} of {len(flow.record.sent)} packets lost)",
            held=gap < MOVE_LIMIT_S,
        )

    # ------------------------------------------------------------------------------ parts

    async def _contact(
        self, source: AgentEntry, target: AgentEntry, eid: IPAddress, what: str, *, first: bool
    ) -> None:
        at = now()
        reply = await asyncio.to_thread(first_reply_ms, source.netns, str(eid))
        pair = f"{source.name} -> {target.name}"
        if first:
            self.timeline.contacts.append(FirstContact(at, pair, reply))
        shown = "no reply" if reply is None else f"{reply:.1f} ms"
        self.check(
            f"{pair} {eid}: {shown} ({what})",
            held=reply is not None and reply < CONTACT_LIMIT_MS,
        )

    def _flow(self, name: str, source: AgentEntry, target: AgentEntry) -> Flow:
        flow = Flow(source.netns, target.netns, target.eids[0])
        self.timeline.flows.append((name, flow.record))
        return flow

    def _states(self) -> dict[str, str]:
        """Return server name -> state as the first server that answers sees it."""
        for server in self.lab.servers:
            try:
                told = ask("wgmap", "--socket", str(server.admin_socket), "status")
            except ProgramError:
                continue
            return {entry["name"]: entry["state"] for entry in told["servers"]}
        return {}

    def _leader(self) -> str:
        for name, state in self._states().items():
            if state == "leader":
                return name
        msg = "no server leads"
        raise ProgramError(msg)

    async def _wait_for_leader(self, old: str, since: float) -> tuple[str, float]:
        found: list[str] = []

        def leads() -> bool:
            found[:] = [n for n, s in self._states().items() if s == "leader" and n != old]
            return bool(found)

        await self._wait(leads, ELECTION_LIMIT_S)
        return (found[0] if found else "nobody"), now() - since

    async def _wait(self, condition: Callable[[], bool], limit_s: float) -> None:
        deadline = now() + limit_s
        while now() < deadline:
            if await asyncio.to_thread(condition):
                return
            await asyncio.sleep(0.05)


async def _move(agent: AgentEntry, offset: int) -> None:
    """Give every underlay address of an agent up for another one."""
    await replace(agent, agent.underlay, [address + offset for address in agent.underlay])
