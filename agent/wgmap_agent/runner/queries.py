"""What an operator may ask a running agent: status, resolve, trace, stop."""

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from wgmap import __version__, clock
from wgmap.addresses import IPAddress
from wgmap.errors import ConfigError, ConflictError, UnavailableError
from wgmap.lisp.messages import Locator, Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.resolutions import Resolution
from wgmap_agent.engine.traces import ServerTrace
from wgmap_agent.runner.contacts import Contacts
from wgmap_agent.runner.pump import Pump
from wgmap_agent.runner.rotator import Rotator
from wgmap_agent.runner.statussocket import Json
from wgmap_agent.runner.trace import Tracer

RESOLVE_S = 12.0  # beyond what the engine waits for servers
RESOLVE_POLL_S = 0.005
TRACE_S = 2.0  # servers report within a second, and it has a way to go
MAX_RESOLVING = 8


class Queries:
    """Answers requests of the status socket."""

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        pump: Pump,
        counters: Callable[[], dict[str, int]],
        contacts: Contacts,
        rotator: Rotator,
    ) -> None:
        self._config = config
        self._engine = engine
        self._pump = pump
        self._counters = counters
        self._contacts = contacts
        self._rotator = rotator
        self._tracer = Tracer(config, contacts)
        self._resolving = 0

    async def __call__(self, question: Json) -> Json:
        """Answer one request; raises a WgmapError that the client is told."""
        match question.get("op"):
            case "status":
                return self.status()
            case "resolve" | "trace" | "forget" | "contact" as op:
                return await self._about(op, _eid(question))
            case "rotate":
                return {"key": str(await self._rotator.begin())}
            case "stop":
                asyncio.get_running_loop().call_soon(self._pump.stop)
                return {}
            case other:
                msg = f"{other!r} is no request"
                raise ConfigError(msg)

    async def _about(self, op: str, eid: IPAddress) -> Json:
        match op:
            case "resolve":
                return await self.resolve(eid)
            case "trace":
                return await self.trace(eid)
            case "forget":
                return await self.forget(eid)
            case _:
                return {"contact": self._contacts.steps(eid)}

    def status(self) -> Json:
        """Describe the agent, as ``wgmap-agent status --json`` prints it."""
        state = self._engine.status(clock.now())
        return {
            "release": __version__,
            "registered": state.registered,
            "servers": [asdict(server) for server in state.servers],
            "peers": [{**asdict(peer), "eids": list(peer.eids)} for peer in state.peers],
            "counters": {**state.counters, **self._counters()},
        }

    async def resolve(self, eid: IPAddress) -> Json:
        """Ask the map servers; UnavailableError where none answers, ConflictError: too many."""
        if not self._is_overlay(eid):
            msg = f"{eid} is not inside the overlay"
            raise ConfigError(msg)
        if self._resolving >= MAX_RESOLVING:
            msg = f"{MAX_RESOLVING} questions are already waiting for an answer"
            raise ConflictError(msg)
        self._resolving += 1
        try:
            return self._resolution(eid, await self._ask(eid))
        finally:
            self._resolving -= 1

    async def trace(self, eid: IPAddress) -> Json:
        """Follow an EID to where it stops."""
        peers = self._engine.status(clock.now()).peers
        traced = await self._traced(eid) if self._is_overlay(eid) else ()
        return await self._tracer.trace(eid, peers, traced, lambda: self.resolve(eid))

    async def _traced(self, eid: IPAddress) -> tuple[ServerTrace, ...]:
        """Ask every server what it makes of an EID, and wait for those that tell."""
        self._pump.take(self._engine.trace(clock.now(), eid))
        end = clock.now() + TRACE_S
        while clock.now() < end:  # no event tells of it
            if all(one.is_over for one in self._engine.traced(eid)):
                break
            await asyncio.sleep(RESOLVE_POLL_S)
        return self._engine.traced(eid)

    def _is_overlay(self, eid: IPAddress) -> bool:
        return any(eid in prefix for prefix in self._config.agent.overlay)

    async def forget(self, eid: IPAddress) -> Json:
        """Drop the data tunnel to an EID; it is gone from the device when this returns."""
        actions = self._engine.forget(clock.now(), eid)
        self._pump.take(actions)
        await self._pump.idle()
        return {"eid": str(eid), "found": bool(actions)}

    async def _ask(self, eid: IPAddress) -> Resolution:
        self._pump.take(self._engine.resolve(clock.now(), eid))
        end = clock.now() + RESOLVE_S
        while (answer := self._engine.resolution(eid)) is None:  # it has no event
            if clock.now() > end:
                break
            await asyncio.sleep(RESOLVE_POLL_S)
        if answer is None or not answer.records:
            msg = "no map server answers"
            raise UnavailableError(msg)
        return answer

    def _resolution(self, eid: IPAddress, answer: Resolution) -> Json:
        record = _best(eid, answer.records)
        locators = record.locators if record is not None else ()
        found = bool(record and locators and record.ttl_min)
        key = next((one.key for one in locators if one.key), None)
        return {
            "instance": self._config.agent.instance,
            "eid": str(record.eid.prefix) if record is not None else str(eid),
            "found": found,
            "fresh": answer.authoritative,
            "version": record.version if record is not None and found else None,
            "ttl_s": record.ttl_min * 60 if record is not None else None,
            "key": None if key is None else str(PublicKey(key)),
            "locators": [_locator(one) for one in locators],
        }


def _eid(question: Json) -> IPAddress:
    text = question.get("eid")
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        msg = f"{text!r} is not an address"
        raise ConfigError(msg) from None


def _best(eid: IPAddress, records: tuple[Record, ...]) -> Record | None:
    covering = [one for one in records if eid in one.eid.prefix]
    return max(covering, key=lambda one: one.eid.prefix.prefixlen, default=None)


def _locator(locator: Locator) -> dict[str, Any]:
    return {
        "address": str(locator.address),
        "port": locator.port,
        "priority": locator.priority,
        "weight": locator.weight,
    }
