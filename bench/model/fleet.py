"""What a fleet does, what that costs each server, and which limit of a machine is met first."""

import math
from dataclasses import dataclass, fields, replace

from model.costs import Costs
from wgmap.wg.uapi import MAX_ANSWER_BYTES

HOUR_S, DAY_S = 3600.0, 86_400.0
QUESTIONS = 2  # of a first contact: each peer in use is asked for at two servers
BUSY = 0.7  # of a process or a line: above it what waits grows
GROWN = 1e9  # peers; no limit is looked for beyond


@dataclass(frozen=True, slots=True)
class Fleet:
    """Agents of one cluster, and what each does on average."""

    agents: float
    servers: int = 3
    contacts_an_hour: float = 20.0  # first contacts of each agent
    peers_in_use: float = 20.0  # whose mappings each renews, once in a TTL of an hour
    moves_a_day: float = 2.0  # changes of each agent's endpoint: the log takes them

    @property
    def questions_a_second(self) -> float:
        """Questions of the whole fleet about others, as first contacts: renewals cost less."""
        contacts = self.contacts_an_hour + self.peers_in_use / QUESTIONS
        return self.agents * contacts / HOUR_S

    @property
    def commits_a_second(self) -> float:
        """Changes that go into the log."""
        return self.agents * self.moves_a_day / DAY_S


@dataclass(frozen=True, slots=True)
class Machine:
    """One server's machine; wireguard-go uses several processors, the other processes one each."""

    cores: float = 16.0
    memory: float = 64e9  # bytes
    bits: float = 1e9  # a second, each way


@dataclass(frozen=True, slots=True)
class Load:
    """What one server of the cluster uses: cores, bytes, bits and commits a second."""

    responder: float
    replica: float
    wireguard: float
    memory: float
    bits_in: float
    bits_out: float
    answer: float  # bytes of wireguard-go's answer when the server looks at its tunnels
    commits: float
    log_bytes: float  # a second

    @classmethod
    def of(cls, costs: Costs, fleet: Fleet) -> "Load":
        """Compute it.

        Every agent has a tunnel to every server, so what it says at rest costs each of them the
        same; questions are spread over the servers, and a change costs every replica.
        """
        own = fleet.questions_a_second / fleet.servers
        peers, commits = fleet.agents, fleet.commits_a_second
        memory = (costs.responder_memory, costs.replica_memory, costs.wireguard_memory)
        return cls(
            responder=costs.responder.at(peers) + own * costs.contact_responders,
            replica=costs.replica.at(peers) + commits * costs.commit,
            wireguard=costs.wireguard.at(peers) + own * costs.contact_wireguard,
            memory=sum(one.at(peers) for one in memory),
            bits_in=costs.bits_in.at(peers),
            bits_out=costs.bits_out.at(peers),
            answer=costs.answer.at(peers),
            commits=commits,
            log_bytes=commits * costs.log_bytes,
        )

    def shares(self, costs: Costs, machine: Machine) -> dict[str, float]:
        """Return how much of each limit is used; 1: it is met."""
        rest = machine.cores - 2  # the responder and the replica have a processor each
        return {
            "responder's processor": self.responder / BUSY,
            "replica's processor": self.replica / BUSY,
            "processors for wireguard-go": self.wireguard / (BUSY * rest),
            "memory": self.memory / (BUSY * machine.memory),
            "line": max(self.bits_in, self.bits_out) / (BUSY * machine.bits),
            "what wireguard-go tells at once": self.answer / MAX_ANSWER_BYTES,
            "commits": self.commits / (BUSY * costs.commits_a_second),
        }


def limits(costs: Costs, fleet: Fleet, machine: Machine) -> dict[str, float]:
    """Return how many agents of that kind meet each limit, the first one first."""
    names = Load.of(costs, fleet).shares(costs, machine)
    found = {name: _met(costs, fleet, machine, name) for name in names}
    return dict(sorted(found.items(), key=lambda one: one[1]))


def _met(costs: Costs, fleet: Fleet, machine: Machine, name: str) -> float:
    """Return how many agents meet one limit (infinite: more than GROWN), by halving."""

    def share(agents: float) -> float:
        load = Load.of(costs, replace(fleet, agents=agents))
        return load.shares(costs, machine)[name]

    low, high = 0.0, GROWN
    if share(high) < 1:
        return float("inf")
    while high - low > max(1.0, low * 1e-6):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= 1 else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet needs: clusters (a virtual network each, or several), servers, responders."""

    clusters: int
    servers: int  # in all clusters
    responders: int  # processes on each server, were there several; one is what there is
    first: str  # the limit that is met first
    load: Load  # of each server, with so many clusters


def plan(costs: Costs, fleet: Fleet, machine: Machine) -> Plan:
    """Plan for a fleet: as many clusters as keep every server below all limits."""
    first, most = next(iter(limits(costs, fleet, machine).items()))
    clusters = _whole(fleet.agents / most)
    alone = Load.of(costs, fleet)
    load = Load.of(costs, replace(fleet, agents=fleet.agents / clusters))
    responders = _whole(alone.responder / BUSY)
    return Plan(clusters, clusters * fleet.servers, responders, first, load)


def _whole(count: float) -> int:
    """Return so many, and one more where a part is left; one at least."""
    return max(1, math.ceil(round(count, 4)))


def names() -> list[str]:
    """Return the fields of a load, in their order."""
    return [field.name for field in fields(Load)]
