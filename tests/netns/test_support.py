"""The helpers of the namespace tests themselves."""

import socket
from pathlib import Path

import pytest

from support.netns import NAMESPACES, alive, netbed

pytestmark = pytest.mark.netns


def current() -> Path:
    return Path("/proc/thread-self/ns/net").readlink()


def test_a_veth_pair_carries_packets() -> None:
    with netbed("wg") as bed:
        left, right = bed.namespace("l"), bed.namespace("r")
        bed.veth(
            left, right, ["192.0.2.1/24", "2001:db8:6::1/64"], ["192.0.2.2/24", "2001:db8:6::2/64"]
        )
        for address in ("192.0.2.2", "2001:db8:6::2"):
            assert "1 received" in left.run("ping", "-c1", "-W2", address)


def test_the_end_removes_everything_also_after_a_failure() -> None:
    with pytest.raises(KeyError), netbed("wg") as bed:  # noqa: PT012  # the bed must see it
        namespace = bed.namespace("x")
        sleeper = bed.popen(namespace, "sleep", "600")
        raise KeyError
    assert bed.leaks() == []
    assert not alive(sleeper.pid)
    assert not (NAMESPACES / namespace.name).exists()


def test_entered_sockets_stay_inside() -> None:
    with netbed("wg") as bed:
        namespace = bed.namespace("x")
        outside = current()
        with namespace.entered():
            inside = current()
            names = {name for _, name in socket.if_nameindex()}
        assert inside != outside
        assert current() == outside
        assert names == {"lo"}
