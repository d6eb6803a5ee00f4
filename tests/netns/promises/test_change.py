"""What changes reaches those who hold it: pushed by every server, over real WireGuard."""

import ipaddress
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.lab import Lab, wait_until
from support.voice import KEY, Voice, ports, silenced
from wgmap.addresses import IPAddress, IPNetwork
from wgmap.clock import now
from wgmap.lisp.messages import Locator
from wgmap.wg.keys import PublicKey
from wgmap_chaos.lab import observation, removal
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]
_LOG = logging.getLogger(__name__)
AS_THE_LAB = ("--endpoint-allow", "192.0.2.0/24", "--endpoint-allow", "2001:db8:6::/64")
AT_ONCE_S = 2.0  # on a machine that others use as well; 50 ms when it is quiet


def owners(lab: Lab, agent: AgentEntry) -> dict[IPNetwork, str]:
    """Return which key has which prefix on an agent's data device."""
    text = lab.run(agent.netns, "wg", "show", agent.data_interface, "allowed-ips")
    found: dict[IPNetwork, str] = {}
    for line in text.splitlines():
        key, _, prefixes = line.partition("\t")
        found |= {ipaddress.ip_network(each): key for each in prefixes.split() if each != "(none)"}
    return found


def owner(lab: Lab, agent: AgentEntry, address: str) -> str | None:
    """Return who gets a packet to an address, as WireGuard decides it."""
    eid = ipaddress.ip_address(address)
    matching = [(each.prefixlen, key) for each, key in owners(lab, agent).items() if eid in each]
    return max(matching)[1] if matching else None


@contextmanager
def paused(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def counters(lab: Lab, agent: AgentEntry) -> dict[str, int]:
    status = wait_until(lambda: lab.agent_status(agent), f"{agent.name} answers")
    found: dict[str, int] = status["counters"]
    return found


def is_told_by_two(lab: Lab, agent: AgentEntry) -> bool:
    """Say whether each of an agent's peers is told of by two servers or more."""
    found = counters(lab, agent)
    return not found["now.untold_peers"] and not found["now.once_told_peers"]


def responders(lab: Lab) -> list[int]:
    """Return the responders that run now (lab.json may be older)."""
    found = []
    for server in lab.file.servers:
        children = lab.run(server.netns, "pgrep", "-P", str(server.pids["supervisor"])).split()
        for child in map(int, children):
            line = lab.run(server.netns, "cat", f"/proc/{child}/cmdline", check=False)
            if "wgmap_cluster.responder" in line:
                found.append(child)
    return found


def key(number: int) -> bytes:
    return bytes([number]) + KEY[1:]


def locator(agent: AgentEntry, number: int) -> Locator:
    return Locator(agent.underlay[0], 51820, key(number))


def test_a_new_key_reaches_the_holders_at_once_and_a_silent_one_later(lab: Lab, base: int) -> None:
    first, _, silent = lab.file.agents[:3]
    moved = lab.file.agent("a4")
    eid = str(moved.eids[0])
    for holder in (first, silent):
        assert lab.ping(holder, moved) is not None
    with silenced(lab, "a4"), Voice(moved) as voice:
        with paused(silent.pids["agent"]):
            datagram = voice.register_bytes(base, locator(moved, 1))
            assert voice.register(lab.file.servers[0], datagram) is not None
            began = now()
            wait_until(
                lambda: owner(lab, first, eid) == str(PublicKey(key(1))), "a1 has it", AT_ONCE_S
            )
            took = now() - began
            assert owner(lab, silent, eid) != str(PublicKey(key(1)))
        assert took < AT_ONCE_S
        wait_until(
            lambda: owner(lab, silent, eid) == str(PublicKey(key(1))), "a3 has it as well", 20
        )


def test_a_new_responder_is_noticed_and_its_pushes_come(lab: Lab, base: int) -> None:
    holder, moved = lab.file.agents[0], lab.file.agent("a4")
    eid = str(moved.eids[0])
    assert lab.ping(holder, moved) is not None
    before = counters(lab, holder).get("server.new_incarnation", 0)
    former = responders(lab)
    assert len(former) == 3
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(removal.alive, former)), "the responders are dead")

    def noticed() -> bool:
        return counters(lab, holder).get("server.new_incarnation", 0) >= before + 3

    wait_until(noticed, "the agent noticed three new responders, though nobody used it", 40)
    # It asks again, or hears of a peer by a question of that one.
    wait_until(lambda: not counters(lab, holder)["now.untold_peers"], "somebody tells of each", 30)
    with silenced(lab, "a4"), Voice(moved) as voice:
        # Its questions are spread over 5 s.
        for number in range(2, 14):
            datagram = voice.register_bytes(base + number, locator(moved, number))
            assert voice.register(lab.file.servers[number % 3], datagram) is not None
        last = str(PublicKey(key(13)))
        wait_until(lambda: owner(lab, holder, eid) == last, "the last of them is pushed", 10)


def kill_whole(lab: Lab, server: ServerEntry) -> None:
    """Kill a server's processes, the supervisor first: nothing is started again."""
    found = observation.server_pids(server.netns, server.state_dir)
    pids = [pid for pid in (found[role] for role in observation.SERVER_ROLES) if pid is not None]
    assert len(pids) == 3
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(removal.alive, pids)), f"{server.name} is dead")


def preferred(lab: Lab, agent: AgentEntry) -> ServerEntry:
    """Return the server that an agent asks first."""

    def name() -> str | None:
        servers = (lab.agent_status(agent) or {}).get("servers", [])
        return next((one["name"] for one in servers if one["preferred"]), None)

    return lab.file.server(wait_until(name, f"{agent.name} prefers a server"))


def meet_while_one_is_preferred(lab: Lab, holder: AgentEntry, other: AgentEntry) -> ServerEntry:
    """Let two strangers meet; return the server that the first asked, and still asks first.

    Round trips decide whom an agent prefers, so that it may prefer another one meanwhile.
    """
    for _ in range(5):
        lab.forget(holder, other)
        asked = preferred(lab, holder)
        assert lab.ping(holder, other) is not None
        # Its question to a second one, or the other side's, of which this one hears by a push.
        wait_until(lambda: is_told_by_two(lab, holder), "two servers tell of each", 30)
        if preferred(lab, holder) == asked:
            return asked
    raise AssertionError(f"{holder.name} prefers another server each time")


def test_a_change_is_pushed_at_once_when_the_server_that_was_asked_has_just_died(
    lab: Lab, base: int
) -> None:
    holder, moved = lab.file.agents[0], lab.file.agent("a4")
    eid, new = str(moved.eids[0]), str(PublicKey(key(60)))
    asked = meet_while_one_is_preferred(lab, holder, moved)
    with silenced(lab, "a4"), Voice(moved) as voice:
        asked_again = counters(lab, holder).get("mapping.revalidated", 0)
        try:
            kill_whole(lab, asked)
            datagram = voice.register_bytes(base + 60, locator(moved, 60))
            others = [one for one in lab.file.servers if one != asked]
            # Where it led the others must elect; the change is there when it is acknowledged.
            wait_until(
                lambda: any(voice.register(one, datagram, wait_s=0.5) for one in others),
                "the other two take the register",
            )
            began = now()
            wait_until(lambda: owner(lab, holder, eid) == new, "a1 has the new key", AT_ONCE_S)
            _LOG.info("pushed by the second server within %.0f ms", 1e3 * (now() - began))
            # It was told: it has not asked again, as it does once the dead server is missed.
            assert counters(lab, holder).get("mapping.revalidated", 0) == asked_again
        finally:
            lab.chaos("start-servers", asked.name)
            wait_until(
                lambda: all(one["fresh"] for one in lab.status()["servers"]), "all are fresh", 30
            )


def test_a_more_specific_mapping_moves_its_part_without_a_hole(lab: Lab, base: int) -> None:
    asker, inner, outer = lab.file.agents[0], lab.file.agent("a3"), lab.file.agent("a4")
    wide, narrow = ipaddress.ip_network("10.66.64.0/18"), ipaddress.ip_network("10.66.70.0/24")
    add_prefix(lab, outer, wide)
    add_prefix(lab, inner, narrow)
    try:
        with silenced(lab, "a3"), silenced(lab, "a4"), Voice(inner) as a3, Voice(outer) as a4:
            servers = lab.file.servers
            register = a4.register_bytes(base + 50, locator(outer, 50), prefixes=[wide])
            assert a4.register(servers[0], register)
            lab.ping(asker, outer, eid=ipaddress.ip_address("10.66.70.9"), wait_s=1)
            wait_until(
                lambda: owner(lab, asker, "10.66.70.9") == str(PublicKey(key(50))), "wide is held"
            )
            register = a3.register_bytes(base + 51, locator(inner, 51), prefixes=[narrow])
            assert a3.register(servers[1], register)
            right = {str(PublicKey(key(50))), str(PublicKey(key(51)))}
            end = now() + 20
            while owner(lab, asker, "10.66.70.9") != str(PublicKey(key(51))):
                assert now() < end, "the more specific one was never pushed"
                assert owner(lab, asker, "10.66.70.9") in right
                assert owner(lab, asker, "10.66.64.1") == str(PublicKey(key(50)))
            # An answer for the rest leaves the part of the other out.
            reply = a3.ask(servers[2], ipaddress.ip_address("10.66.71.1"))
            assert reply is not None
            parts = [record.eid.prefix for record in reply.records if record.locators]
            assert ipaddress.ip_address("10.66.71.1") in max(parts, key=lambda one: one.prefixlen)
            assert not any(narrow.overlaps(part) for part in parts)
            assert owner(lab, asker, "10.66.64.1") == str(PublicKey(key(50)))
    finally:
        for agent in (inner, outer):
            set_prefixes(lab, agent, *(f"{eid}" for eid in agent.eids))


def add_prefix(lab: Lab, agent: AgentEntry, prefix: IPNetwork) -> None:
    set_prefixes(lab, agent, *map(str, agent.eids), str(prefix))


def set_prefixes(lab: Lab, agent: AgentEntry, *prefixes: str) -> None:
    arguments = [word for prefix in prefixes for word in ("--prefix", prefix)]
    lab.wgmap("peer", "set", agent.name, *arguments)


def test_several_locators_come_back_whole_and_in_order(lab: Lab, base: int) -> None:
    agent = lab.file.agent("a4")
    lab.wgmap(
        *("peer", "set", "a4", "--endpoint-allow", "198.51.100.0/24"),
        *("--endpoint-allow", "2001:db8:9::/48"),
    )
    wanted = [
        ("2001:db8:9::7", 51820, 1, 30),
        ("198.51.100.7", 51820, 1, 70),
        ("198.51.100.9", 40_000, 2, 100),
        ("2001:db8:9::1", 51821, 255, 0),
        (str(agent.underlay[0]), 51820, 2, 50),
    ]
    try:
        with silenced(lab, "a4"), Voice(agent) as voice:
            locators = [
                Locator(ipaddress.ip_address(at), port, KEY, priority=priority, weight=weight)
                for at, port, priority, weight in wanted
            ]
            assert voice.register(lab.file.servers[0], voice.register_bytes(base + 80, *locators))
            for server in lab.file.servers:
                reply = voice.ask(server, agent.eids[1], refresh=True, wait_s=3)
                assert reply is not None
                assert len(reply.records) == 2
                for record in reply.records:
                    assert [
                        (str(at.address), at.port, at.priority, at.weight) for at in record.locators
                    ] == wanted
            shown = json.loads(lab.wgmap("resolve", str(agent.eids[0]), "--json"))["locators"]
            assert [at["address"] for at in shown] == [at for at, *_ in wanted]
    finally:
        lab.wgmap("peer", "set", "a4", *AS_THE_LAB)


def test_nobody_aims_the_fleet_at_a_third_address(lab: Lab, base: int) -> None:
    agent, victim = lab.file.agent("a4"), ipaddress.ip_address("192.0.2.200")
    server = lab.file.servers[0]
    lab.wgmap("peer", "set", "a4", "--no-endpoint-allow")
    try:
        aim(lab, agent, victim, server, base)
    finally:
        lab.wgmap("peer", "set", "a4", *AS_THE_LAB)


def aim(lab: Lab, agent: AgentEntry, victim: IPAddress, server: ServerEntry, base: int) -> None:
    with silenced(lab, "a4"), Voice(agent) as voice:
        there = Locator(agent.underlay[0], 51820, KEY)
        # The control: its own outer address is taken, in the same register with the victim's.
        mixed = voice.register(
            server, voice.register_bytes(base + 90, Locator(victim, 51820, KEY), there)
        )
        assert mixed is not None
        addresses = {str(at.address) for one in mixed.records for at in one.locators}
        assert addresses == {str(agent.underlay[0])}
        alone = voice.register_bytes(base + 91, Locator(victim, 51820, KEY))
        for each in lab.file.servers:
            assert voice.register(each, alone, wait_s=0.8) is None
            reply = voice.ask(each, agent.eids[0], refresh=True, wait_s=3)
            assert ports(reply) == {51820}
            assert reply is not None
            assert {str(at.address) for one in reply.records for at in one.locators} == addresses


def test_after_a_move_the_new_outer_address_is_taken_at_once(lab: Lab) -> None:
    agent = lab.file.agent("a4")
    lab.wgmap("peer", "set", "a4", "--no-endpoint-allow")
    old, new = f"{agent.underlay[0]}/24", "192.0.2.114/24"
    port = agent.underlay_port

    def served(address: str) -> bool:
        at = lab.resolve(agent.eids[0])["locators"]
        return address.partition("/")[0] in {each["address"] for each in at}

    try:
        lab.run(agent.netns, "ip", "addr", "add", new, "dev", port)
        lab.run(agent.netns, "ip", "addr", "del", old, "dev", port)
        began = now()
        wait_until(lambda: served(new) and not served(old), "the new address is served", 10)
        assert now() - began < 10
        assert lab.ping(lab.file.agents[0], agent) is not None
    finally:
        lab.run(agent.netns, "ip", "addr", "add", old, "dev", port, check=False)
        lab.run(agent.netns, "ip", "addr", "del", new, "dev", port, check=False)
        wait_until(lambda: served(old), "the old address is back", 20)
        lab.wgmap("peer", "set", "a4", *AS_THE_LAB)
