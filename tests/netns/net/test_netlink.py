"""Links, addresses and routes on real interfaces of a namespace."""

import asyncio
import errno
import ipaddress
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from support.netns import Namespace, Netbed, netbed
from wgmap.net import sysctl
from wgmap.net.changes import Change, ChangeKind, ChangeListener
from wgmap.net.errors import NetworkError
from wgmap.net.netlink import PROTOCOL, Network
from wgmap.net.plan import Route

pytestmark = pytest.mark.netns

NET4, NET6 = ipaddress.ip_network("10.66.2.0/24"), ipaddress.ip_network("fd66:2::/64")
EID4, EID6 = ipaddress.ip_interface("10.66.1.1/32"), ipaddress.ip_interface("fd66:1::1/128")


@pytest.fixture
def bed() -> Iterator[Netbed]:
    with netbed("wg") as bed:
        yield bed


@pytest.fixture
def namespace(bed: Netbed) -> Namespace:
    return bed.namespace("n")


@pytest.fixture
def port(bed: Netbed, namespace: Namespace) -> str:
    name = bed.name("d")
    namespace.ip("link", "add", name, "type", "bridge")
    return name


@pytest_asyncio.fixture
async def network(namespace: Namespace, port: str) -> AsyncIterator[Network]:
    with namespace.entered():
        network = await Network().__aenter__()
    yield network
    await network.__aexit__()


async def ready(network: Network, port: str) -> None:
    """Bring the port up with both EIDs."""
    await network.up(port, mtu=1400)
    for address in (EID4, EID6):
        await network.add_address(port, address)


async def test_a_link_is_up_with_its_mtu(network: Network, namespace: Namespace, port: str) -> None:
    await network.up(port, mtu=1400)
    text = namespace.ip("link", "show", port)
    assert "mtu 1400" in text
    assert ",UP" in text


async def test_addresses_are_added_and_deleted_twice_without_harm(
    network: Network, port: str
) -> None:
    for _ in range(2):
        await ready(network, port)
    states = {state.address: state for state in (await network.addresses())[port]}
    assert states[EID4].usable
    assert states[EID6].usable
    assert states[EID4].interface == port
    for _ in range(2):
        for address in (EID4, EID6):
            await network.delete_address(port, address)
    left = (await network.addresses()).get(port, ())
    assert not {EID4, EID6} & {state.address for state in left}


async def test_the_second_address_outlives_the_first(network: Network, port: str) -> None:
    """promote_secondaries is set in every namespace; without it both would go."""
    first, second = (ipaddress.ip_interface(f"10.1.1.{n}/24") for n in (1, 2))
    await network.up(port)
    await network.add_address(port, first)
    await network.add_address(port, second)
    await network.delete_address(port, first)
    found = [state.address for state in (await network.addresses())[port]]
    assert second in found
    assert first not in found


async def test_routes_carry_the_preferred_source(
    network: Network, namespace: Namespace, port: str
) -> None:
    await ready(network, port)
    wanted = [Route(NET4, port, EID4.ip), Route(NET6, port, EID6.ip)]
    await network.change_routes(replace=wanted)
    assert sorted(await network.routes(port), key=str) == sorted(wanted, key=str)
    for prefix, eid in ((NET4, EID4), (NET6, EID6)):
        text = namespace.ip("route", "get", str(prefix[9]))
        assert f"dev {port}" in text
        assert f"src {eid.ip}" in text


async def test_only_the_difference_is_applied(
    network: Network, namespace: Namespace, port: str
) -> None:
    await ready(network, port)
    namespace.ip("route", "add", "10.77.0.0/16", "dev", port)  # not ours
    moved = Route(NET4, port, EID4.ip)
    stays = Route(ipaddress.ip_network("10.66.3.1/32"), port)
    goes = Route(NET6, port)
    first = await network.set_routes(port, [Route(NET4, port), stays, goes])
    assert len(first.add) == 3
    second = await network.set_routes(port, [moved, stays])
    assert (second.add, second.delete) == ((moved,), (goes,))
    assert set(await network.routes(port)) == {moved, stays}
    assert not await network.set_routes(port, [moved, stays])
    assert "10.77.0.0/16" in namespace.ip("route", "show", "dev", port)


async def test_metrics_and_tables_are_kept_apart(network: Network, port: str) -> None:
    await ready(network, port)
    for prefix in (NET4, NET6):
        assert await network.routes(port, table=1077) == []
        plain, second = Route(prefix, port), Route(prefix, port, metric=2000)
        other = Route(prefix, port, table=1077)
        await network.change_routes(replace=[plain, second, other])
        assert set(await network.routes(port)) == {plain, second}
        assert await network.routes(port, table=1077) == [other]
        await network.change_routes(delete=[plain])
        assert await network.routes(port) == [second]
        await network.change_routes(delete=[second, other])


async def test_deleting_what_is_not_there_is_no_error(network: Network, port: str) -> None:
    await network.up(port)
    await network.change_routes(
        delete=[Route(NET4, port), Route(NET6, port), Route(NET4, "wg-none")]
    )
    assert await network.routes(port) == []


async def test_foreign_routes_are_not_deleted(
    network: Network, namespace: Namespace, port: str
) -> None:
    await network.up(port)
    for prefix in (NET4, NET6):
        namespace.ip("route", "add", str(prefix), "dev", port)
        await network.change_routes(delete=[Route(prefix, port)])
    assert str(NET4) in namespace.ip("route", "show", "dev", port)
    assert str(NET6) in namespace.ip("-6", "route", "show", "dev", port)


async def test_a_refused_route_is_raised_and_the_others_are_made(
    network: Network, port: str
) -> None:
    await ready(network, port)
    bad = Route(NET4, port, ipaddress.ip_address("10.9.9.9"))  # not an address of ours
    good = Route(NET6, port)
    with pytest.raises(NetworkError) as caught:
        await network.change_routes(replace=[bad, good])
    assert caught.value.errno == errno.EINVAL
    assert await network.routes(port) == [good]


async def test_a_thousand_routes_at_once(network: Network, port: str) -> None:
    await ready(network, port)
    wanted = [
        Route(ipaddress.ip_network((0x0A640000 + number, 32)), port, EID4.ip)
        for number in range(1000)
    ]
    await network.change_routes(replace=wanted)
    assert set(await network.routes(port)) == set(wanted)
    await network.change_routes(delete=wanted)
    assert await network.routes(port) == []


async def test_an_interface_made_anew_is_found_again(
    network: Network, namespace: Namespace, port: str
) -> None:
    await network.up(port)
    first = network.index(port)
    namespace.ip("link", "del", port)
    namespace.ip("link", "add", port, "type", "bridge")
    await network.up(port)
    assert network.index(port) != first
    await network.change_routes(replace=[Route(NET4, port)])
    assert await network.routes(port) == [Route(NET4, port)]


async def test_an_unknown_interface_is_named(network: Network) -> None:
    with pytest.raises(NetworkError, match="interface wg-none: No such device"):
        network.index("wg-none")


async def heard(listener: ChangeListener, *expected: Change) -> bool:
    """Wait until the listener has told these, in this order, others in between."""
    left = list(expected)
    async with asyncio.timeout(5):
        async for change in listener:
            if change == left[0]:
                left.pop(0)
            if not left:
                return True
    return False


async def test_changes_are_told(network: Network, namespace: Namespace, port: str) -> None:
    with namespace.entered():
        listener = network.changes()
    with listener:
        index = network.index(port)
        await network.up(port)
        await network.add_address(port, EID4)
        await network.delete_address(port, EID4)
        await network.change_routes(replace=[Route(NET4, port)])
        namespace.ip("route", "add", "10.78.0.0/16", "dev", port)
        assert await heard(
            listener,
            Change(ChangeKind.LINK, index=index),
            Change(ChangeKind.ADDRESS, index=index),
            Change(ChangeKind.ADDRESS, added=False, index=index),
            Change(ChangeKind.ROUTE),
        )


async def test_lost_changes_are_told(network: Network, namespace: Namespace, port: str) -> None:
    await network.up(port)
    with namespace.entered():
        listener = network.changes()
    with listener:
        index = network.index(port)
        for number in range(3000):
            command = "add" if number % 2 == 0 else "del"
            await network._netlink.addr(command, index=index, address="10.8.8.8", prefixlen=32)
        assert await heard(listener, Change(ChangeKind.LOST))
        await network.add_address(port, EID4)
        assert await heard(listener, Change(ChangeKind.ADDRESS, index=index))


def test_sysctls_are_those_of_the_namespace(namespace: Namespace, port: str) -> None:
    path = ("net", "ipv6", "conf", port, "forwarding")
    with namespace.entered():
        sysctl.write(*path, value=1)
        assert sysctl.read(*path) == "1"
        sysctl.write(*path, value=0)
    assert namespace.run("cat", f"/proc/sys/{'/'.join(path)}").strip() == "0"
    assert PROTOCOL > 4


async def test_listings_at_one_time_and_one_that_was_cancelled_are_whole(
    network: Network, port: str
) -> None:
    """The kernel gives a socket one listing at a time, and refuses the next (EBUSY)."""
    await ready(network, port)
    wanted = [Route(host, port, EID4.ip) for host in NET4.subnets(new_prefix=32)]
    wanted += [Route(part, port, EID6.ip) for part in NET6.subnets(new_prefix=72)]
    await network.change_routes(replace=wanted)
    for _ in range(5):
        cancelled = asyncio.ensure_future(network.routes(port))
        for _ in range(3):
            await asyncio.sleep(0)
        cancelled.cancel()
        routes, addresses, rules, again = await asyncio.gather(
            network.routes(port), network.addresses(), network.rules(), network.routes(port)
        )
        assert sorted(routes, key=str) == sorted(again, key=str) == sorted(wanted, key=str)
        assert {state.address for state in addresses[port]} >= {EID4, EID6}
        assert rules == []
