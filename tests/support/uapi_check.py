"""What holds for any answer of a WireGuard process at all: for the tests and for the fuzzer."""

from dataclasses import replace

from wgmap.wg import uapi
from wgmap.wg.device import DeviceConfig, DeviceError, DeviceState, PeerConfig, PeerState


def accept(answer: bytes) -> DeviceState | None:
    """Read; None where it is refused or tells of an error. Any other error is a finding."""
    try:
        return uapi.parse_state("wg0", answer)
    except (uapi.UapiError, DeviceError):
        return None


def check_answer(answer: bytes) -> None:
    """Peers that are accepted can be set, and are the same when that is read as an answer.

    A look at the same answer finds the same peers.
    """
    state = accept(answer)
    if state is None:
        return
    look = uapi.parse_look("wg0", answer)
    for key, peer in state.peers.items():
        if f"\npublic_key={key.hex()}\n".encode() in b"\n" + answer:  # as they are written
            assert look.peer(key) == peer
    changes = tuple(
        PeerConfig(one.key, one.endpoint, one.allowed_ips, one.keepalive_s)
        for one in state.peers.values()
    )
    try:
        written = uapi.encode(DeviceConfig(peers=changes))
    except uapi.UapiError:
        return  # an endpoint whose zone cannot be written
    again = accept(written.removesuffix(b"\n") + b"errno=0\n\n")
    assert again is not None
    assert list(again.peers.values()) == [_settable(one) for one in state.peers.values()]


def _settable(peer: PeerState) -> PeerState:
    return replace(peer, last_handshake=None, rx_bytes=0, tx_bytes=0)
