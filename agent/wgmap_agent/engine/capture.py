"""Takes in what comes out of the TUN: packets that no route leads to their peer, or not yet."""

from wgmap.addresses import IPAddress, host_prefix
from wgmap_agent.engine import packets
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.flows import Event, Flow
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.types import Action, ContactStep, Inject, Refusal, Refuse, Stamp


class Capture:
    """Works on the flows of a data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def packet(self, now: float, packet: bytes) -> list[Action]:
        """Take in a packet from the TUN."""
        header = packets.read(packet)
        if header is None:
            self._plane.counters.add(f"packet.dropped_{packets.Drop.MALFORMED.value}")
            return []
        drop = packets.judge(header, self._plane.identity.prefixes, self._plane.identity.overlay)
        if drop is not None:
            self._plane.counters.add(f"packet.dropped_{drop.value}")
            return []
        flow = self._plane.contact.get(header.destination)
        if flow is not None:
            return self._packet_of(now, flow, packet)
        return self._first_packet(now, header.destination, packet)

    def _packet_of(self, now: float, flow: Flow, packet: bytes) -> list[Action]:
        """Take in another packet of a flow.

        Where the tunnel stands, and no more of it can be held, its packets go on without us.
        """
        actions = self._plane.contact.packet(now, flow, packet, Event.PACKET)
        peer = None if flow.key is None else self._plane.data.peers.get(flow.key)
        return actions if peer is None else [*actions, *self._plane.let_pass(peer)]

    def _first_packet(self, now: float, destination: IPAddress, packet: bytes) -> list[Action]:
        claim = self._plane.data.table.owner(destination)
        if claim is not None:
            return self._packet_to(now, self._plane.data.peers[claim.key], destination, packet)
        refusal = self._plane.negative.get(now, destination)
        if refusal is not None:
            return self._refuse(now, packet, refusal)
        flow = self._plane.contact.open(now, destination)
        if flow is None:
            return self._refuse(now, packet, Refusal.UNREACHABLE)
        actions = self._plane.contact.packet(now, flow, packet, Event.PACKET)
        actions += self._plane.requests.ask(now, host_prefix(destination), recall=True)
        flows = (destination,)
        captured, asked = Stamp(flows, ContactStep.CAPTURED, now), Stamp(flows, ContactStep.ASKED)
        return [captured, *actions, asked]

    def _packet_to(
        self, now: float, peer: Peer, destination: IPAddress, packet: bytes
    ) -> list[Action]:
        """Take in what came out of the TUN although its peer is installed (it was queued there)."""
        flow = None if peer.phase is Phase.UP else self._plane.contact.open(now, destination)
        if flow is None:
            self._plane.counters.add("packet.late")
            return [Inject((packet,))]
        self._plane.contact.assign(flow, peer.key)
        actions: list[Action] = []
        if peer.role is Role.PUSHED and not peer.answered:
            # It may have asked without wanting a tunnel now: our question makes us known to it.
            self._plane.both_pull(now, peer)
            actions = self._plane.requests.ask(now, host_prefix(destination))
        passive = peer.phase is Phase.PASSIVE and not peer.answered
        if passive:
            soon = now + self._plane.handshakes.poll(self._plane.servers.rtt())
            peer.check_at = min(peer.fallback_at, soon)
        event = Event.PACKET_PASSIVE if passive else Event.PACKET_KNOWN
        return actions + self._plane.contact.packet(now, flow, packet, event)

    def _refuse(self, now: float, packet: bytes, refusal: Refusal) -> list[Action]:
        """Tell a sender, within the limit."""
        if not self._plane.negative.may_refuse(now):
            self._plane.counters.add("refusal.limited")
            return []
        self._plane.counters.add("refusal.sent")
        return [Refuse(packet, refusal)]
