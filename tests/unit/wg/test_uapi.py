"""The text of the userspace API."""

import errno
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmap.addresses import Endpoint
from wgmap.wg import uapi
from wgmap.wg.device import DeviceConfig, DeviceError, PeerConfig, PeerState
from wgmap.wg.keys import KEY_BYTES, PrivateKey, PublicKey

KEY = PublicKey(bytes(range(32)))
OTHER = PublicKey(bytes(range(1, 33)))
PRIVATE = PrivateKey(bytes(range(32)))

addresses = st.ip_addresses()
endpoints = st.builds(Endpoint, addresses, st.integers(1, 65535))
networks = st.builds(
    lambda address, cut: ipaddress.ip_network((address, address.max_prefixlen - cut), strict=False),
    addresses,
    st.integers(0, 32),
)
peer_states = st.builds(
    PeerState,
    key=st.binary(min_size=32, max_size=32).map(PublicKey),
    endpoint=st.none() | endpoints,
    allowed_ips=st.lists(networks, max_size=5).map(tuple),
    keepalive_s=st.integers(0, 65535),
    last_handshake=st.none() | st.integers(1, 1 << 33).map(float),
    rx_bytes=st.integers(0, uapi.MAX_U64),
    tx_bytes=st.integers(0, uapi.MAX_U64),
)


def text_of(state: PeerState) -> str:
    """Write a peer as wireguard-go answers it."""
    lines = [f"public_key={state.key.hex()}", "preshared_key=" + "0" * 64, "protocol_version=1"]
    if state.endpoint is not None:
        lines.append(f"endpoint={state.endpoint}")
    lines += [
        f"last_handshake_time_sec={int(state.last_handshake or 0)}",
        "last_handshake_time_nsec=0",
        f"tx_bytes={state.tx_bytes}",
        f"rx_bytes={state.rx_bytes}",
        f"persistent_keepalive_interval={state.keepalive_s}",
        *(f"allowed_ip={prefix}" for prefix in state.allowed_ips),
    ]
    return "\n".join(lines) + "\n"


class TestEncode:
    def test_a_whole_configuration(self) -> None:
        config = DeviceConfig(
            private_key=PRIVATE,
            listen_port=51820,
            fwmark=7,
            peers=(
                PeerConfig(
                    KEY,
                    Endpoint(ipaddress.ip_address("2001:db8::1"), 1),
                    (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")),
                    keepalive_s=25,
                    update_only=True,
                ),
            ),
        )
        assert uapi.encode(config).decode().splitlines() == [
            "set=1",
            f"private_key={bytes(range(32)).hex()}",
            "listen_port=51820",
            "fwmark=7",
            f"public_key={KEY.hex()}",
            "update_only=true",
            "endpoint=[2001:db8::1]:1",
            "persistent_keepalive_interval=25",
            "replace_allowed_ips=true",
            "allowed_ip=10.0.0.0/8",
            "allowed_ip=fd00::/8",
            "",
        ]

    def test_what_is_not_named_is_not_written(self) -> None:
        assert uapi.encode(DeviceConfig()) == b"set=1\n\n"
        assert uapi.encode(DeviceConfig(peers=(PeerConfig(KEY),))) == (
            f"set=1\npublic_key={KEY.hex()}\n\n".encode()
        )

    def test_no_prefix_is_not_the_same_as_unchanged_prefixes(self) -> None:
        request = uapi.encode(DeviceConfig(peers=(PeerConfig(KEY, allowed_ips=()),)))
        assert b"replace_allowed_ips=true" in request
        assert b"allowed_ip=" not in request

    def test_the_kick_keeps_its_order(self) -> None:
        config = DeviceConfig(peers=(PeerConfig(KEY, remove=True), PeerConfig(KEY, keepalive_s=1)))
        assert uapi.encode(config).decode().splitlines()[1:5] == [
            f"public_key={KEY.hex()}",
            "remove=true",
            f"public_key={KEY.hex()}",
            "persistent_keepalive_interval=1",
        ]

    def test_a_zone_cannot_smuggle_a_line(self) -> None:
        endpoint = Endpoint(ipaddress.ip_address("fe80::1%x\nprivate_key=00"), 1)
        with pytest.raises(uapi.UapiError, match="no endpoint"):
            uapi.encode(DeviceConfig(peers=(PeerConfig(KEY, endpoint),)))


class TestParse:
    @given(st.lists(peer_states, max_size=5, unique_by=lambda peer: peer.key))
    def test_reads_back_what_a_device_writes(self, peers: list[PeerState]) -> None:
        answer = f"private_key={PRIVATE.reveal().hex()}\nlisten_port=51820\n" + "".join(
            text_of(peer) for peer in peers
        )
        state = uapi.parse_state("wg0", f"{answer}errno=0\n\n".encode())
        assert state.public_key == PRIVATE.public
        assert state.listen_port == 51820
        assert list(state.peers.values()) == peers

    @given(st.lists(peer_states, max_size=3, unique_by=lambda peer: peer.key))
    def test_what_is_configured_comes_back(self, peers: list[PeerState]) -> None:
        """A device that answers with the lines that it was given stands for the round trip."""
        wanted = tuple(
            PeerConfig(p.key, p.endpoint, p.allowed_ips, keepalive_s=p.keepalive_s) for p in peers
        )
        lines = uapi.encode(DeviceConfig(listen_port=1, peers=wanted)).decode().splitlines()[1:-1]
        kept = [line for line in lines if line != "replace_allowed_ips=true"]
        state = uapi.parse_state("wg0", "\n".join([*kept, "errno=0\n\n"]).encode())
        got = tuple(
            PeerConfig(p.key, p.endpoint, p.allowed_ips, keepalive_s=p.keepalive_s)
            for p in state.peers.values()
        )
        assert got == wanted

    @given(st.lists(peer_states, max_size=5, unique_by=lambda peer: peer.key))
    def test_a_look_finds_each_peer_as_a_reading_has_it(self, peers: list[PeerState]) -> None:
        text = f"private_key={PRIVATE.reveal().hex()}\nlisten_port=51820\n" + "".join(
            text_of(peer) for peer in peers
        )
        answer = f"{text}errno=0\n\n".encode()
        look, state = uapi.parse_look("wg0", answer), uapi.parse_state("wg0", answer)
        for key, peer in state.peers.items():
            assert look.peer(key) == peer
            assert look.handshake_s(key) == int(peer.last_handshake or 0)
        assert KEY in state.peers or look.peer(KEY) is None

    def test_a_look_finds_each_of_many_peers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = [PublicKey(number.to_bytes(32, "big")) for number in range(1, 100)]
        text = "".join(f"public_key={key.hex()}\nrx_bytes={key[-1]}\n" for key in keys)
        for head in ("", "listen_port=1\n"):
            for size in (1, 10, 79, 80, 200, 1 << 20):  # where the parts end
                monkeypatch.setattr(uapi, "SPLIT_BYTES", size)
                look = uapi.parse_look("wg0", f"{head}{text}errno=0\n\n".encode())
                found = [look.peer(key) for key in keys]
                assert [one.rx_bytes for one in found if one] == [key[-1] for key in keys]

    def test_a_look_at_an_answer_that_is_none(self) -> None:
        with pytest.raises(DeviceError) as caught:
            uapi.parse_look("wg0", b"errno=-5\n\n")
        assert caught.value.errno == errno.EIO
        for wrong in (b"", b"\n\n", f"public_key={KEY.hex()}\n\n".encode()):
            with pytest.raises(uapi.UapiError):
                uapi.parse_look("wg0", wrong)

    def test_what_is_wrong_with_one_peer_is_told_to_who_asks_for_it(self) -> None:
        other = PublicKey(bytes(KEY_BYTES))
        for line in (b"endpoint=nowhere", b"endpoint=192.0.2.1", b"rx_bytes=-1", b"endpoint=\xff"):
            keys = "".join(f"public_key={one.hex()}\n" for one in (KEY, other)).encode()
            look = uapi.parse_look("wg0", keys + line + b"\nerrno=0\n\n")
            assert look.peer(KEY) is not None
            with pytest.raises(DeviceError) as caught:
                look.peer(other)
            assert caught.value.errno == errno.EPROTO
        answer = f"public_key={KEY.hex()}\nlast_handshake_time_sec=x\nerrno=0\n\n".encode()
        with pytest.raises(DeviceError):
            uapi.parse_look("wg0", answer).handshake_s(KEY)
        answer = f"public_key={KEY.hex()}\nendpoint=192.0.2.1:0\nerrno=0\n\n".encode()
        peer = uapi.parse_look("wg0", answer).peer(KEY)
        assert peer is not None
        assert peer.endpoint is None

    def test_an_empty_device(self) -> None:
        state = uapi.parse_state("wg0", b"errno=0\n\n")
        assert (state.public_key, state.listen_port, state.peers) == (None, 0, {})

    def test_the_errno_is_kept(self) -> None:
        assert uapi.parse_errno(b"errno=-22\n\n") == errno.EINVAL
        assert uapi.parse_errno(b"errno=98\n\n") == errno.EADDRINUSE
        with pytest.raises(DeviceError) as caught:
            uapi.parse_state("wg0", b"errno=-5\n\n")
        assert caught.value.errno == errno.EIO

    def test_keys_of_later_versions_are_passed_over(self) -> None:
        answer = f"color=red\npublic_key={KEY.hex()}\nmood=good\nrx_bytes=1\nerrno=0\n\n"
        assert uapi.parse_state("wg0", answer.encode()).peers[KEY].rx_bytes == 1

    def test_a_peer_that_sent_from_port_0_hides_only_its_endpoint(self) -> None:
        answer = f"public_key={KEY.hex()}\nendpoint=192.0.2.1:0\nerrno=0\n\n"
        assert uapi.parse_state("wg0", answer.encode()).peers[KEY].endpoint is None

    def test_nanoseconds_count(self) -> None:
        answer = (
            f"public_key={KEY.hex()}\nlast_handshake_time_sec=1\n"
            "last_handshake_time_nsec=500000000\nerrno=0\n\n"
        )
        assert uapi.parse_state("wg0", answer.encode()).peers[KEY].last_handshake == 1.5

    @pytest.mark.parametrize(
        "lines",
        [
            "",
            "nonsense",
            "rx_bytes=1",
            "public_key=zz",
            "public_key=00",
            f"public_key={KEY.hex()}\npublic_key={KEY.hex()}",
            f"public_key={KEY.hex()}\nrx_bytes=-1",
            f"public_key={KEY.hex()}\nrx_bytes={1 << 64}",
            f"public_key={KEY.hex()}\nrx_bytes={'9' * 10000}",
            f"public_key={KEY.hex()}\nallowed_ip=10.0.0.1/8",
            f"public_key={KEY.hex()}\nendpoint=example.com:1",
            "listen_port=65536",
        ],
    )
    def test_bad_lines_are_refused(self, lines: str) -> None:
        with pytest.raises(uapi.UapiError):
            uapi.parse_state("wg0", f"{lines}\nerrno=0\n\n".encode())

    @given(st.binary(max_size=200))
    def test_garbage_raises_only_its_own_error(self, data: bytes) -> None:
        self.parse_or_refuse(data)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["public_key", "endpoint", "allowed_ip", "private_key", "rx_bytes", "x", ""]
                ),
                st.text(max_size=70) | st.just(KEY.hex()) | st.integers().map(str),
            ),
            max_size=8,
        )
    )
    def test_garbled_lines_raise_only_its_own_error(self, pairs: list[tuple[str, Any]]) -> None:
        lines = "".join(f"{key}={value}\n" for key, value in pairs)
        self.parse_or_refuse(f"{lines}errno=0\n\n".encode(errors="surrogatepass"))

    @staticmethod
    def parse_or_refuse(data: bytes) -> None:
        try:
            state = uapi.parse_state("wg0", data)
        except (uapi.UapiError, DeviceError):
            return
        assert all(key == peer.key for key, peer in state.peers.items())

    def test_a_flood_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uapi, "MAX_ANSWER_BYTES", 100)
        with pytest.raises(uapi.UapiError, match="101 bytes"):
            uapi.parse_errno(b"x" * 101)
