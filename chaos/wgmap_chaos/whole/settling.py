"""After the last heal: how long until all is well, and what servers hold then."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap_chaos.demo.ping import first_reply_ms
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history.records import Call, Final, Op, Record, Settled
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.load.light import Light

WAIT = 2  # times what is promised: then it is known by how much it was missed
POLL_S = 0.5
PING_S = 1.0
AT_ONCE = 20
TRIES = 10
SURE_S = 30.0  # for a server to be sure of all EIDs: one that never is would take minutes


async def settle(
    site: Site, healed: float, promised_s: float, record: Callable[[Record], None]
) -> None:
    """Wait for every single thing, and record when it came, counted from ``healed``."""

    async def wait(what: str, look: Callable[[], Awaitable[str]]) -> None:
        missing = "not looked at"
        while now() - healed < WAIT * promised_s:
            missing = await look()
            if not missing:
                record(Settled(what=what, took_s=now() - healed))
                return
            await asyncio.sleep(POLL_S)
        record(Settled(what=what, took_s=None, detail=missing[:500]))

    await asyncio.gather(*(wait(what, look) for what, look in _wanted(site)))


def _wanted(site: Site) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
    """Yield what must become true; each says what is missing, or nothing."""
    yield "the servers are fresh and hold the same", lambda: _same(site)
    for name in site.agents:
        yield f"{name} is known where it is", lambda name=name: _known(site, name)  # type: ignore[misc]
    for source, target in itertools.permutations(site.agents, 2):
        yield (
            f"{source} reaches {target}",
            lambda source=source, target=target: _reaches(site, source, target),  # type: ignore[misc]
        )


async def _same(site: Site) -> str:
    views = await asyncio.gather(*(site.ask(name, "/v1/digest") for name in site.servers))
    status = await asyncio.gather(*map(site.status, site.servers))
    if None in views or None in status:
        return "a server does not answer"
    if not all(one["fresh"] for one in status[0]["servers"]):
        return f"not all are fresh: {status[0]['servers']}"
    states = {(view["applied"], view["digest"]) for view in views}
    return "" if len(states) == 1 else f"states {states}"


async def _known(site: Site, name: str) -> str:
    agent = site.agent(name)
    wanted = {str(address) for address in site.movers[name].addresses}
    for server in site.servers:
        for eid in agent.eids:
            found = await site.ask(server, "/v1/resolve", eid=str(eid))
            if found is None or not found["fresh"]:
                return f"{server} is not sure of {eid}"
            places = {locator["address"] for locator in found["locators"]}
            if places != wanted:
                return f"{server}: {eid} at {sorted(places)}, not {sorted(wanted)}"
    return ""


async def _reaches(site: Site, source: str, target: str) -> str:
    netns, eids = site.agent(source).netns, site.agent(target).eids
    for eid in eids:
        if await asyncio.to_thread(first_reply_ms, netns, str(eid), PING_S) is None:
            return f"no reply from {eid}"
    return ""


async def finals(
    site: Site, light: Light, eids: Sequence[IPAddress], record: Callable[[Record], None]
) -> None:
    """Record what each server holds, and what its responder says of each EID.

    Raises LabError where servers do not answer.
    """
    answers, peers = {}, {}
    for name in site.servers:
        answers[name] = await _numbers(name, light, eids, record)
        peers[name] = await site.ask(name, "/v1/peers")
        if peers[name] is None:
            raise LabError(f"{name} does not say who its peers are")
    # At one moment, and after all that was asked: an agent that is seen again is an entry.
    view = await _agreed(site)
    for name in site.servers:
        record(
            Final(
                server=name,
                index=view[name][0],
                digest=view[name][1],
                peers={peer["name"]: peer["revoked"] for peer in peers[name]},
                numbers=answers[name],
            )
        )


async def _agreed(site: Site) -> dict[str, tuple[int, str]]:
    """Return each server's state, at one index if they come to one; housekeeping goes on."""
    found: dict[str, tuple[int, str]] = {}
    for _ in range(TRIES):
        views = await asyncio.gather(*(site.ask(name, "/v1/digest") for name in site.servers))
        if None in views:
            continue
        found = {
            name: (view["applied"], view["digest"])
            for name, view in zip(site.servers, views, strict=True)
        }
        if len({applied for applied, _ in found.values()}) == 1:
            return found
        await asyncio.sleep(POLL_S)
    if not found:
        raise LabError("servers do not tell their digests")
    return found


async def _numbers(
    server: str, light: Light, eids: Sequence[IPAddress], record: Callable[[Record], None]
) -> dict[str, int]:
    """Ask one server's responder for every EID, until it is sure."""
    gate = asyncio.Semaphore(AT_ONCE)
    end = now() + SURE_S

    async def ask(eid: IPAddress) -> Call | None:
        for _ in range(TRIES):
            async with gate:
                if now() > end:
                    return None
                call = await light.ask(eid, Op.LOOKUP, only=server)
            record(call)
            if call.authoritative:
                return call
        return None

    calls = await asyncio.gather(*map(ask, eids))
    return {call.key: call.result or 0 for call in calls if call is not None}
