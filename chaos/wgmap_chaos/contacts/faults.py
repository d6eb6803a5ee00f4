"""The faults of first contact, each as what is lost where.

Offsets are in bits from the UDP header. LISP messages are matched inside the control tunnel,
where they are in clear: the type is the first nibble; the IPv4 EID of the first record tells a
push from the answer to a register. Handshakes are matched on the underlay: type and length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from wgmap_chaos.lab.inventory import AgentEntry, Inventory
from wgmap_chaos.losses import Loss

DATA_PORT = 51820
SERVERS = 3  # that are asked, and push


@dataclass(frozen=True, slots=True)
class Pair:
    """Who contacts whom, in which lab."""

    lab: Inventory
    puller: AgentEntry
    target: AgentEntry

    def reversed(self) -> "Pair":
        """Return the pair the other way round."""
        return Pair(self.lab, self.target, self.puller)


Losses = Callable[[Pair], tuple[Loss, ...]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens during a first contact beside the delay."""

    losses: Losses = lambda _: ()
    either: bool = False  # one of the losses is enough: which side sends it is the agents' choice
    both: bool = False  # the target contacts the puller at the same moment
    loss_percent: float = 0.0
    answers_late_ms: float = 0.0  # the puller's, while the target is told in time


def _lisp(kind: int) -> str:
    return f"meta l4proto udp udp dport 4342 @th,64,4 {kind}"


def _eid(agent: AgentEntry) -> int:
    return int(next(eid for eid in agent.eids if isinstance(eid, IPv4Address)))


def _push(pair: Pair, count: int) -> tuple[Loss, ...]:
    to = pair.target
    match = f"{_lisp(4)} @th,288,32 {_eid(pair.puller):#x}"
    return (Loss(to.netns, to.control_interface, match, count),)


def _reply(pair: Pair, count: int) -> tuple[Loss, ...]:
    to = pair.puller
    match = f"{_lisp(2)} @th,256,32 {_eid(pair.target):#x}"
    return (Loss(to.netns, to.control_interface, match, count),)


def _at_servers(pair: Pair, match: str) -> tuple[Loss, ...]:
    return tuple(Loss(one.netns, one.control_interface, match) for one in pair.lab.servers)


def _request(pair: Pair) -> tuple[Loss, ...]:
    return _at_servers(pair, f"ip6 saddr {pair.puller.control} {_lisp(1)}")


def _ack(pair: Pair) -> tuple[Loss, ...]:
    return _at_servers(pair, f"ip6 saddr {pair.target.control} {_lisp(5)}")


def _handshake(kind: int, length: int, to: AgentEntry) -> tuple[Loss, ...]:
    match = (
        f"meta l4proto udp udp dport {DATA_PORT} udp length {length + 8} @th,64,32 {kind << 24:#x}"
    )
    return (Loss(to.netns, to.underlay_port, match),)


def _initiation(to: AgentEntry) -> tuple[Loss, ...]:
    return _handshake(1, 148, to)


def _response(to: AgentEntry) -> tuple[Loss, ...]:
    return _handshake(2, 92, to)


FAULTS: Mapping[str, Fault] = {
    "none": Fault(),
    "the first push is lost": Fault(lambda pair: _push(pair, 1)),
    "the first three pushes are lost": Fault(lambda pair: _push(pair, SERVERS)),
    "the push's acknowledgement is lost": Fault(_ack, either=True),
    "the first request to each server is lost": Fault(_request, either=True),
    "the first reply is lost": Fault(lambda pair: _reply(pair, 1)),
    "the first three replies are lost": Fault(lambda pair: _reply(pair, SERVERS)),
    "the puller's first initiation is lost": Fault(lambda pair: _initiation(pair.target)),
    "the first response is lost": Fault(
        lambda pair: _response(pair.puller) + _response(pair.target), either=True
    ),
    "both pull each other": Fault(both=True),
    # Without delay the one that is first has its tunnel before the other asks: then the other's
    # pushes never are. Which one that is is chance.
    "both pull, the first three pushes are lost": Fault(
        lambda pair: _push(pair, SERVERS) + _push(pair.reversed(), SERVERS), both=True, either=True
    ),
    "both pull, the first initiation of each is lost": Fault(
        lambda pair: _initiation(pair.target) + _initiation(pair.puller), both=True, either=True
    ),
    # As where a leader is replaced: the target begins to initiate by itself meanwhile.
    "the answers come 300 ms late": Fault(answers_late_ms=300),
    "the answers come 600 ms late": Fault(answers_late_ms=600),
    "the answers come 1000 ms late": Fault(answers_late_ms=1000),
    "5 % of all packets are lost": Fault(loss_percent=5),
}
