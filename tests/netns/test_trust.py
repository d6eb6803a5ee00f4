"""What an enrolled agent and an underlay neighbour must not be able to do.

Each refusal stands beside a control that shows that the same attempt, made by the right one or in
the allowed way, would have been seen.
"""

import json
import select
import socket
import time

import pytest

from support.forge import send_frame, udp6_frame
from support.lab import Lab
from wgmap.addresses import IPAddress, host_prefix
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    LISP_PORT,
    Eid,
    Locator,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    Record,
    RequestRecord,
)
from wgmap.wg.keys import PublicKey
from wgmap_chaos.flow import socket_in
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow]

FORGED_KEY = bytes(range(32))


def control_socket(agent: AgentEntry) -> socket.socket:
    """Return a socket of a hostile program on an enrolled host, beside its agent."""
    made = socket_in(agent.netns, socket.AF_INET6)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, agent.control_interface.encode())
    made.bind((str(agent.control), 0))
    return made


def exchange(
    sender: socket.socket, server: ServerEntry, message: MapRequest | MapRegister
) -> MapReply | MapNotify | None:
    """Send a message until it is answered (for 2 s) and return the answer to its nonce."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        sender.sendto(encode(message), (str(server.control), LISP_PORT))
        if select.select([sender], [], [], 0.3)[0]:
            answer = decode(sender.recv(65535))
            if isinstance(answer, MapReply | MapNotify) and answer.nonce == message.nonce:
                return answer
    return None


def request(eid: IPAddress, agent: AgentEntry, nonce: int) -> MapRequest:
    return MapRequest(nonce, (agent.control,), (RequestRecord(Eid(host_prefix(eid))),))


def forged_record(eid: IPAddress, address: IPAddress) -> Record:
    at = Locator(address, 51820, FORGED_KEY)
    return Record(Eid(host_prefix(eid)), (at,), ttl_min=60, authoritative=True, version=4000)


def test_an_agent_registers_its_own_prefix_and_no_others(lab: Lab) -> None:
    thief, victim = lab.file.agents[0], lab.file.agents[1]
    server = lab.file.servers[0]
    before = lab.resolve(victim.eids[0])
    with control_socket(thief) as sender:
        own = exchange(sender, server, request(thief.eids[0], thief, 11))
        assert isinstance(own, MapReply), "the control tunnel carries the hostile program"
        nonce = 1 << 40
        stolen = MapRegister(nonce, (forged_record(victim.eids[0], thief.underlay[0]),))
        assert exchange(sender, server, stolen) is None
        same = tuple(
            Record(r.eid, r.locators, ttl_min=r.ttl_min) for r in own.records if r.locators
        )
        # The control: its own prefixes, in the same way, are acknowledged.
        assert isinstance(exchange(sender, server, MapRegister(nonce, same)), MapNotify)
    after = lab.resolve(victim.eids[0])
    assert (after["key"], after["version"]) == (before["key"], before["version"])


def test_an_agent_reaches_neither_raft_nor_the_admin_api(lab: Lab) -> None:
    agent, server, other = lab.file.agents[0], lab.file.servers[0], lab.file.servers[1]
    targets = [server.mesh, server.control, server.underlay]
    assert connects(other.netns, server.mesh, 4343), "the control: another server reaches Raft"
    assert [at for at in targets if connects(agent.netns, at, 4343)] == []
    listening = lab.run(server.netns, "ss", "-Htln").splitlines()
    assert [line.split()[3] for line in listening if ":4343" not in line] == []
    assert server.admin_socket.stat().st_mode & 0o007 == 0


def connects(netns: str, address: IPAddress, port: int) -> bool:
    """Tell whether a TCP connection is accepted within a second."""
    with socket_in(netns, family_of(address), socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect((str(address), port))
        except OSError:
            return False
        return True


def test_an_agent_cannot_push_to_another(lab: Lab) -> None:
    thief, victim, third = lab.file.agents[:3]
    push = encode(MapNotify(7, (forged_record(third.eids[0], thief.underlay[0]),)))
    lab.ping(thief, victim)  # the data tunnel between them stands, and is one way to try
    with control_socket(thief) as inside:
        inside.sendto(push, (str(victim.control), LISP_PORT))
    for address in (victim.control, victim.eids[1], *victim.underlay):
        with socket_in(thief.netns, family_of(address)) as outside:
            try:
                outside.sendto(push, (str(address), LISP_PORT))
            except OSError:
                continue  # no route: refused before it left
    assert_refused(lab, victim, third)


def test_a_neighbour_that_forges_a_servers_address_cannot_push(lab: Lab) -> None:
    neighbour, victim, third = lab.file.agents[:3]
    server = lab.file.servers[0]
    push = encode(MapNotify(9, (forged_record(third.eids[0], neighbour.underlay[0]),)))
    macs = (mac(lab, neighbour), mac(lab, victim))
    forged = (server.control, LISP_PORT)
    with socket_in(victim.netns, socket.AF_INET6) as witness:
        # The control: Linux delivers such packets to a socket that is bound to an address only.
        witness.bind((str(victim.control), LISP_PORT + 1))
        aim = (victim.control, LISP_PORT + 1)
        send_frame(neighbour.netns, neighbour.underlay_port, udp6_frame(macs, forged, aim, push))
        assert select.select([witness], [], [], 2)[0], "the forged frame reached the host"
    target = (victim.control, LISP_PORT)
    for _ in range(3):
        send_frame(neighbour.netns, neighbour.underlay_port, udp6_frame(macs, forged, target, push))
    assert_refused(lab, victim, third)


def assert_refused(lab: Lab, victim: AgentEntry, third: AgentEntry) -> None:
    """Check that the forged key is nowhere, after the victim's agent handled what came later."""
    assert lab.ping(victim, third) is not None, "the true mapping of the third is what counts"
    shown = lab.run(victim.netns, "wg", "show", victim.data_interface, "peers")
    key = str(PublicKey(FORGED_KEY))
    assert key not in shown
    assert key not in json.dumps(lab.agent_status(victim))


def family_of(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def mac(lab: Lab, agent: AgentEntry) -> bytes:
    text = lab.run(agent.netns, "cat", f"/sys/class/net/{agent.underlay_port}/address")
    return bytes.fromhex(text.strip().replace(":", ""))


def test_what_looks_for_open_ports_sees_them(lab: Lab) -> None:
    server, agent = lab.file.servers[0], lab.file.agents[0]
    with socket_in(server.netns, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((str(server.underlay), 4999))
        listener.listen()
        assert connects(agent.netns, server.underlay, 4999)
    assert not connects(agent.netns, server.underlay, 4999)
