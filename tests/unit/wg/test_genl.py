"""The kernel's WireGuard as bytes, checked against the library's encoder and decoder."""

import ipaddress
import struct
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.wg import genl
from wgmap.wg.device import DeviceConfig, PeerConfig, PeerState
from wgmap.wg.keys import PrivateKey, PublicKey

FAMILY = 30
KEY = PublicKey(bytes(range(32)))
PRIVATE = PrivateKey(bytes(range(32)))
V4 = Endpoint(ipaddress.ip_address("192.0.2.1"), 51820)
V6 = Endpoint(ipaddress.ip_address("2001:db8::1"), 51821)
NETS = (ipaddress.ip_network("10.66.2.0/24"), ipaddress.ip_network("fd66:2::/64"))

prefixes = st.builds(
    lambda address, cut: ipaddress.ip_network((address, address.max_prefixlen - cut), strict=False),
    st.ip_addresses(),
    st.integers(0, 32),
)
endpoints = st.builds(Endpoint, st.ip_addresses(), st.integers(1, 65535))
peers = st.builds(
    PeerState,
    key=st.binary(min_size=32, max_size=32).map(PublicKey),
    endpoint=st.none() | endpoints,
    allowed_ips=st.lists(prefixes, max_size=4).map(tuple),
    keepalive_s=st.integers(0, 65535),
    last_handshake=st.none(),
    rx_bytes=st.just(0),
    tx_bytes=st.just(0),
)


def library(request: bytes) -> Any:
    message = wgmsg(request)
    message.decode()
    assert message["header"]["length"] == len(request)
    return message


class TestEncode:
    def test_a_device_as_the_library_reads_it(self) -> None:
        config = DeviceConfig(PRIVATE, 51820, 7, (PeerConfig(KEY, V4, NETS, 25),))
        (request,) = genl.set_device(FAMILY, "wg0", config)
        message = library(request)
        assert message["header"]["type"] == FAMILY
        assert message["cmd"] == 1
        assert message.get_attr("WGDEVICE_A_IFNAME") == "wg0"
        assert message.get_attr("WGDEVICE_A_PRIVATE_KEY") == b64encode(PRIVATE.reveal())
        assert message.get_attr("WGDEVICE_A_LISTEN_PORT") == 51820
        assert message.get_attr("WGDEVICE_A_FWMARK") == 7
        (peer,) = message.get_attr("WGDEVICE_A_PEERS")
        assert peer.get_attr("WGPEER_A_PUBLIC_KEY") == b64encode(KEY)
        assert peer.get_attr("WGPEER_A_FLAGS") == 2, "replace the prefixes"
        assert peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
        endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
        assert (endpoint["addr"], endpoint["port"]) == ("192.0.2.1", 51820)
        allowed = [one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS")]
        assert allowed == ["10.66.2.0/24", "fd66:2::/64"]

    def test_an_ipv6_endpoint_as_the_library_reads_it(self) -> None:
        (request,) = genl.set_device(FAMILY, "wg0", DeviceConfig(peers=(PeerConfig(KEY, V6),)))
        (peer,) = library(request).get_attr("WGDEVICE_A_PEERS")
        endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
        assert (endpoint["addr"], endpoint["port"]) == ("2001:db8::1", 51821)
        assert peer.get_attr("WGPEER_A_FLAGS") == 0, "the prefixes are left alone"

    @pytest.mark.parametrize(
        ("peer", "flags"),
        [
            (PeerConfig(KEY, remove=True), 1),
            (PeerConfig(KEY, allowed_ips=()), 2),
            (PeerConfig(KEY, update_only=True), 4),
        ],
    )
    def test_flags(self, peer: PeerConfig, flags: int) -> None:
        (request,) = genl.set_device(FAMILY, "wg0", DeviceConfig(peers=(peer,)))
        (found,) = library(request).get_attr("WGDEVICE_A_PEERS")
        assert found.get_attr("WGPEER_A_FLAGS") == flags

    def test_nothing_to_change_is_still_a_request(self) -> None:
        (request,) = genl.set_device(FAMILY, "wg0", DeviceConfig())
        assert library(request).get_attr("WGDEVICE_A_IFNAME") == "wg0"

    def test_many_peers_go_in_bounded_messages_in_their_order(self) -> None:
        keys = [PublicKey(number.to_bytes(32, "big")) for number in range(1, 1203)]
        config = DeviceConfig(PRIVATE, peers=tuple(PeerConfig(key, V6, NETS, 25) for key in keys))
        requests = genl.set_device(FAMILY, "wg0", config)
        assert all(len(request) < 65536 for request in requests)
        found = [
            PublicKey(b64decode(peer.get_attr("WGPEER_A_PUBLIC_KEY")))
            for request in requests
            for peer in library(request).get_attr("WGDEVICE_A_PEERS")
        ]
        assert found == keys
        with_key = [r for r in requests if library(r).get_attr("WGDEVICE_A_PRIVATE_KEY")]
        assert with_key == requests[:1]
        removals = DeviceConfig(peers=tuple(PeerConfig(key, remove=True) for key in keys))
        assert len(genl.set_device(FAMILY, "wg0", removals)) == 3

    def test_more_prefixes_than_one_message_carries(self) -> None:
        nets = tuple(ipaddress.ip_network((0x0A000000 + n, 32)) for n in range(2100))
        config = DeviceConfig(peers=(PeerConfig(KEY, allowed_ips=nets),))
        flags, found = [], []
        for request in genl.set_device(FAMILY, "wg0", config):
            for peer in library(request).get_attr("WGDEVICE_A_PEERS"):
                flags.append(peer.get_attr("WGPEER_A_FLAGS"))
                found += [one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS")]
        assert found == [str(net) for net in nets]
        assert flags == [2, 0, 0, 0, 0], "only the first replaces"

    def test_a_zone_must_be_a_number(self) -> None:
        named = Endpoint(ipaddress.ip_address("fe80::1%eth0"), 1)
        with pytest.raises(genl.GenlError, match="zone"):
            genl.set_device(FAMILY, "wg0", DeviceConfig(peers=(PeerConfig(KEY, named),)))


class TestParse:
    @given(st.lists(peers, max_size=6, unique_by=lambda peer: peer.key))
    def test_what_is_set_comes_back(self, states: list[PeerState]) -> None:
        """A dump carries the attributes of a setting, so one stands for the other."""
        config = DeviceConfig(
            listen_port=51820,
            peers=tuple(
                PeerConfig(p.key, p.endpoint, p.allowed_ips, keepalive_s=p.keepalive_s)
                for p in states
            ),
        )
        messages = [
            message
            for request in genl.set_device(FAMILY, "wg0", config)
            for message in genl.parse(genl.numbered(request, 9))
        ]
        assert {message.sequence for message in messages} == {9}
        state = genl.read_state("wg0", messages)
        assert list(state.peers.values()) == states
        assert state.listen_port == 51820
        look = genl.read_look("wg0", messages)
        assert all(look.peer(one.key) == one for one in states)
        assert KEY in state.peers or look.peer(KEY) is None

    def test_a_peer_that_goes_on_in_the_next_message(self) -> None:
        nets: tuple[IPNetwork, ...] = tuple(
            ipaddress.ip_network((0x0A000000 + n, 32)) for n in range(1200)
        )
        config = DeviceConfig(peers=(PeerConfig(KEY, V4, nets, 25),))
        messages = [m for r in genl.set_device(FAMILY, "wg0", config) for m in genl.parse(r)]
        peer = genl.read_state("wg0", messages).peers[KEY]
        assert (peer.allowed_ips, peer.endpoint, peer.keepalive_s) == (nets, V4, 25)
        assert genl.read_look("wg0", messages).peer(KEY) == peer

    def test_errors_and_the_end_carry_a_code(self) -> None:
        error = struct.pack("=IHHIIi", 36, 2, 0, 5, 0, -19) + bytes(16)
        end = struct.pack("=IHHIIi", 20, 3, 0x12, 6, 0, 0)
        refused, done = genl.parse(error + end)
        assert (refused.sequence, refused.code) == (5, 19)
        assert (done.sequence, done.code, done.interrupted) == (6, 0, True)

    @given(st.binary(max_size=150))
    def test_garbage_raises_only_its_own_error(self, data: bytes) -> None:
        head = struct.pack("=IHHII", 16 + 4 + len(data), FAMILY, 0, 1, 0) + bytes(4)
        for datagram in (data, head + data):
            self.parse_or_refuse(datagram)

    @given(st.binary(max_size=60), st.sampled_from([1, 4, 5, 6, 7, 9]))
    def test_garbled_peers_raise_only_its_own_error(self, data: bytes, kind: int) -> None:
        inner = struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
        element = struct.pack("=HH", 4 + len(inner), 0x8000) + inner
        body = bytes(4) + struct.pack("=HH", 4 + len(element), 0x8008) + element
        self.parse_or_refuse(struct.pack("=IHHII", 16 + len(body), FAMILY, 0, 1, 0) + body)

    @staticmethod
    def parse_or_refuse(data: bytes) -> None:
        try:
            state = genl.read_state("wg0", list(genl.parse(data)))
        except genl.GenlError:
            return
        assert all(key == peer.key for key, peer in state.peers.items())
        look = genl.read_look("wg0", list(genl.parse(data)))
        assert all(look.peer(key) == peer for key, peer in state.peers.items())
