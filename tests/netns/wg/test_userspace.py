"""What is particular to the userspace backend: a process that must outlive its users."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.netns import Namespace, Netbed, alive, netbed, wait_until
from wgmap.wg.device import DeviceConfig, DeviceError, PeerConfig
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap.wg.userspace import UserspaceBackend, UserspaceDevice, exists, socket_path

pytestmark = pytest.mark.netns

OWNER = """
import asyncio, sys
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap.wg.userspace import UserspaceBackend

async def main():
    device = await UserspaceBackend().open(sys.argv[1])
    await device.configure(DeviceConfig(peers=(PeerConfig(PublicKey(bytes(31) + b"1")),)))
    print(device.carrier_pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def open_files(pid: int) -> list[Path]:
    return [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def bed() -> Iterator[Netbed]:
    with netbed("wg") as bed:
        yield bed


@pytest.fixture
def namespace(bed: Netbed) -> Namespace:
    return bed.namespace("n")


@pytest_asyncio.fixture
async def device(bed: Netbed, namespace: Namespace) -> AsyncIterator[UserspaceDevice]:
    with namespace.entered():
        device = await UserspaceBackend().open(bed.name("w"))
    yield device
    await device.close()


async def test_tunnels_outlive_a_killed_owner(bed: Netbed, namespace: Namespace) -> None:
    name = bed.name("w")
    owner = bed.popen(namespace, sys.executable, "-c", OWNER, name, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    carrier = int(owner.stdout.readline())
    owner.kill()
    owner.wait(timeout=10)
    with namespace.entered():
        device = await UserspaceBackend().open(name)
    assert device.carrier_pid == carrier
    assert list((await device.read()).peers) == [PublicKey(bytes(31) + b"1")]
    await device.close()


async def test_the_carrier_shares_nothing_with_us(bed: Netbed, namespace: Namespace) -> None:
    leak = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        with namespace.entered():
            device = await UserspaceBackend().open(bed.name("w"))
        pid = device.carrier_pid
        assert os.getsid(pid) == pid
        assert Path("/etc/hostname") not in open_files(pid)
        assert parent_of(pid) == 1
        assert pid in namespace.pids()
        await device.close()
    finally:
        os.close(leak)


async def test_a_socket_file_is_no_sign_of_life(
    bed: Netbed, namespace: Namespace, device: UserspaceDevice
) -> None:
    os.kill(device.carrier_pid, signal.SIGKILL)
    wait_until(lambda: not alive(device.carrier_pid), "the carrier gone")
    assert socket_path(device.name).exists()
    with namespace.entered():
        again = await UserspaceBackend().open(device.name)
    assert again.carrier_pid != device.carrier_pid
    # The old handle must not take the new, empty device for its own.
    with pytest.raises(DeviceError) as caught:
        await device.configure(DeviceConfig(listen_port=0))
    assert caught.value.errno == errno.ENODEV
    await again.close()


async def test_removing_takes_process_and_stale_socket(
    namespace: Namespace, device: UserspaceDevice
) -> None:
    with namespace.entered():
        await UserspaceBackend().remove(device.name)
        assert not alive(device.carrier_pid)
        assert not socket_path(device.name).exists()
        assert not exists(device.name)
        again = await UserspaceBackend().open(device.name)
        os.kill(again.carrier_pid, signal.SIGKILL)
        wait_until(lambda: not alive(again.carrier_pid), "the carrier gone")
        await UserspaceBackend().remove(device.name)
        assert not socket_path(device.name).exists()
        await again.close()


async def test_a_carrier_that_ignores_sigterm_is_killed(
    namespace: Namespace, device: UserspaceDevice
) -> None:
    os.kill(device.carrier_pid, signal.SIGSTOP)  # what is stopped takes no SIGTERM
    with namespace.entered():
        await UserspaceBackend().remove(device.name)
    assert not alive(device.carrier_pid)


async def test_a_broken_connection_is_made_anew_once(device: UserspaceDevice) -> None:
    device._connection.drop()
    await device.configure(DeviceConfig(listen_port=0))
    assert (await device.read()).peers == {}


async def test_a_cancelled_request_does_not_shift_the_answers(device: UserspaceDevice) -> None:
    keys = [PrivateKey.generate().public for _ in range(300)]
    adding = asyncio.create_task(
        device.configure(DeviceConfig(peers=tuple(PeerConfig(key) for key in keys)))
    )
    await asyncio.sleep(0)  # let it begin
    adding.cancel()
    await asyncio.wait([adding])
    state = await device.read()
    assert state.name == device.name
    await device.configure(DeviceConfig(peers=(PeerConfig(keys[0], keepalive_s=5),)))
    assert (await device.read()).peers[keys[0]].keepalive_s == 5


async def test_a_change_that_is_not_answered_at_once_is_waited_for(device: UserspaceDevice) -> None:
    """Whatever is asked meanwhile, each gets its own answer."""
    keys = [PrivateKey.generate().public for _ in range(3)]
    os.kill(device.carrier_pid, signal.SIGSTOP)
    try:
        rest = device.begin(DeviceConfig(peers=(PeerConfig(keys[0]),)))
        assert rest is not None
        busy = device.begin(DeviceConfig(peers=(PeerConfig(keys[1]),)))
        assert busy is not None
        reading = asyncio.create_task(device.read())
        await asyncio.sleep(0)  # it has its turn before them
    finally:
        os.kill(device.carrier_pid, signal.SIGCONT)
    await rest
    await busy
    assert keys[0] in (await reading).peers
    assert device.begin(DeviceConfig(peers=(PeerConfig(keys[2]),))) is None
    assert set((await device.read()).peers) == set(keys)


async def test_a_connection_that_broke_is_made_anew_for_a_change_at_once(
    device: UserspaceDevice,
) -> None:
    device._connection._carrier.shutdown(socket.SHUT_RDWR)
    key = PrivateKey.generate().public
    rest = device.begin(DeviceConfig(peers=(PeerConfig(key),)))
    assert rest is not None
    await rest
    assert set((await device.read()).peers) == {key}


async def test_requests_at_the_same_time_are_answered_each(device: UserspaceDevice) -> None:
    keys = [PrivateKey.generate().public for _ in range(20)]
    await asyncio.gather(
        *(device.configure(DeviceConfig(peers=(PeerConfig(key),))) for key in keys),
        *(device.read() for _ in range(5)),
    )
    assert set((await device.read()).peers) == set(keys)


async def test_a_carrier_in_another_namespace_is_left_alone(
    bed: Netbed, device: UserspaceDevice
) -> None:
    elsewhere = bed.namespace("o")
    with elsewhere.entered():
        for attempt in (UserspaceBackend().open, UserspaceBackend().remove):
            with pytest.raises(DeviceError, match="another network namespace") as caught:
                await attempt(device.name)
            assert caught.value.errno == errno.EADDRINUSE
    assert alive(device.carrier_pid)


async def test_an_interface_of_another_kind_is_left_alone(
    bed: Netbed, namespace: Namespace
) -> None:
    name = bed.name("w")
    namespace.ip("link", "add", name, "type", "bridge")
    with namespace.entered():
        for attempt in (UserspaceBackend().open, UserspaceBackend().remove):
            with pytest.raises(DeviceError) as caught:
                await attempt(name)
            assert caught.value.errno == errno.EEXIST
        assert exists(name)


async def test_a_program_that_does_not_start_is_told_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bed: Netbed
) -> None:
    program = tmp_path / "broken-wireguard"
    program.write_text("#!/bin/sh\necho no TUN today >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("wgmap.wg.userspace.START_S", 0.3)
    with pytest.raises(DeviceError, match=r"does not start .*no TUN today"):
        await UserspaceBackend(tmp_path, str(program)).open(bed.name("w"))
    with pytest.raises(DeviceError, match="no program nowhere-to-be-found"):
        await UserspaceBackend(program="nowhere-to-be-found").open(bed.name("w"))


@pytest.mark.parametrize("name", ["", "..", "a/b", "sixteen-letters-"])
async def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="not a name"):
        await UserspaceBackend().open(name)
