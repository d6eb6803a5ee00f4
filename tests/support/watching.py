"""Keeps registering and asking, and writes down what servers say (for ``judges.freshness``)."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from support.lab import Lab, wait_until
from support.voice import Voice, ports
from wgmap.clock import now
from wgmap_chaos.judges.freshness import Acknowledged, Answered, Cut, History
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

FIRST = 52_000  # above the port that the agent itself registers; up to 65535
REGISTER_EVERY_S = 0.03  # a peer may register 50 times a second
ASK_EVERY_S = 0.005
PATIENCE_S = 3.0  # for an answer: longer than any pause, so that what was paused is heard
REFRESH_S = 0.6  # without a quorum none comes
REFRESH_EACH = 4  # of so many questions one is a refresh


@dataclass
class Watching:
    """What runs, and what it heard."""

    lab: Lab
    agent: AgentEntry
    base: int
    history: History = field(default_factory=History)
    stop: threading.Event = field(default_factory=threading.Event)
    last: tuple[int, bytes] = (0, b"")  # acknowledged last, and its datagram
    current: tuple[int, bytes] = (0, b"")  # what is being registered
    avoided: frozenset[str] = frozenset()  # servers that the registrar leaves alone

    @property
    def servers(self) -> tuple[ServerEntry, ...]:
        return self.lab.file.servers

    def register(self, voice: Voice) -> None:
        """Register one number after the other, each at the next server that may have a quorum."""
        servers = self.servers
        for number in range(FIRST + 1, 1 << 16):
            if self.stop.is_set():
                return
            self.current = number, voice.register_bytes(self.base + number, port=number)
            turn = number % len(servers)
            order = [one for one in servers[turn:] + servers[:turn] if one.name not in self.avoided]
            if any(self.give(voice, server, *self.current) for server in order):
                self.last = self.current
            _pause(voice, REGISTER_EVERY_S)
        raise AssertionError("the test has run out of ports")

    def give(self, voice: Voice, server: ServerEntry, number: int, datagram: bytes) -> bool:
        """Register at one server, and note its answer."""
        sent = now()
        if voice.register(server, datagram, wait_s=REFRESH_S) is None:
            return False
        self.history.acknowledged.append(Acknowledged(number, server.name, sent, now()))
        return True

    def ask(self, voice: Voice, server: ServerEntry) -> None:
        """Ask one server again and again."""
        turn = 0
        while not self.stop.is_set():
            turn += 1
            refresh = turn % REFRESH_EACH == 0
            patience = REFRESH_S if refresh else PATIENCE_S
            sent = now()
            reply = voice.ask(server, self.agent.eids[0], refresh=refresh, wait_s=patience)
            if reply is not None:
                sure = all(record.authoritative for record in reply.records)
                shown = max(ports(reply), default=0)
                self.history.answered.append(
                    Answered(shown, server.name, sent, now(), sure, refresh)
                )
            _pause(voice, ASK_EVERY_S)

    @contextmanager
    def cut(self, *servers: ServerEntry) -> Iterator[None]:
        """Cut servers off from the others (not from each other, nor from agents)."""
        names = frozenset(server.name for server in servers)
        others = ",".join(str(one.underlay) for one in self.servers if one.name not in names)
        rules = "add table inet fr; "
        for hook, side in (("input", "saddr"), ("output", "daddr")):
            rules += f"add chain inet fr {hook} {{ type filter hook {hook} priority 0; }}; "
            rules += f"add rule inet fr {hook} ip {side} {{ {others} }} udp dport 51821 drop; "
        self.avoided = names
        before, began = self.last, 0.0
        try:
            for server in servers:
                self.lab.run(server.netns, "nft", rules)
            began = now()
            with self._tempting(servers, before):
                yield
        finally:
            if began:
                self.history.cuts.append(Cut(names, began, now()))
            for server in servers:
                self.lab.run(server.netns, "nft", "delete table inet fr", check=False)
            self.avoided = frozenset()

    @contextmanager
    def _tempting(
        self, servers: tuple[ServerEntry, ...], before: tuple[int, bytes]
    ) -> Iterator[None]:
        """Register at servers without a quorum what they know already, and what they cannot."""
        over = threading.Event()

        def tempt(voice: Voice) -> None:
            while not over.is_set() and not self.stop.is_set():
                for server in servers:
                    self.give(voice, server, *before)
                    self.give(voice, server, *self.current)

        with self.running(tempt):
            try:
                yield
            finally:
                over.set()

    @contextmanager
    def running(self, *works: Callable[[Voice], None]) -> Iterator[None]:
        """Run these in threads, each with a voice; raises what they raised, at the end.

        They must have been told to stop by then.
        """
        with ExitStack() as open_until_the_end:
            voices = [open_until_the_end.enter_context(Voice(self.agent)) for _ in works]
            pool = open_until_the_end.enter_context(ThreadPoolExecutor(len(works)))
            pairs = zip(works, voices, strict=True)
            futures = [pool.submit(work, voice) for work, voice in pairs]
            yield
        for future in futures:
            future.result()


def _pause(voice: Voice, for_s: float) -> None:
    """Wait while pushes are acknowledged."""
    for _ in voice.heard(now() + for_s):
        pass


@contextmanager
def watching(lab: Lab, agent: AgentEntry, base: int) -> Iterator[Watching]:
    """Register and ask until the end; the agent itself must be silenced."""
    watch = Watching(lab, agent, base)

    def asker(server: ServerEntry) -> Callable[[Voice], None]:
        return lambda voice: watch.ask(voice, server)

    with watch.running(watch.register, *map(asker, watch.servers)):
        try:
            wait_until(lambda: watch.last[0], "the first register is acknowledged")
            yield watch
        finally:
            watch.stop.set()
