"""Adds many peers to a device of each backend that this machine has, and reads them; wants root.

Prints one line of JSON for each: seconds to add all in the batches of a server, seconds of a
reading (the median of five), both in processor time of this process and of whatever carries the
device as well where that is a process, and the memory that all of it took.
"""

import argparse
import asyncio
import gc
import ipaddress
import json
import os
import secrets
from pathlib import Path
from statistics import median
from typing import Any

from usage import Usage

from wgmap.addresses import host_prefix
from wgmap.clock import now
from wgmap.wg import kernel
from wgmap.wg.device import Backend, Device, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap.wg.userspace import UserspaceBackend, UserspaceDevice
from wgmap_cluster.interfaces.plan import BATCH

FIRST = ipaddress.IPv6Address("fd77:676d:6170::1:0")
READINGS = 5


def _free_bytes() -> int:
    """Return what the machine has left: the kernel's peers are in no process."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def _carriers(device: Device) -> tuple[int, ...]:
    return (device.carrier_pid,) if isinstance(device, UserspaceDevice) else ()


async def measure(backend: Backend, peers: int) -> dict[str, Any]:
    """Measure one backend with so many peers."""
    keys = [PublicKey(secrets.token_bytes(32)) for _ in range(peers)]
    configs = [
        PeerConfig(key, allowed_ips=(host_prefix(FIRST + number),))
        for number, key in enumerate(keys)
    ]
    gc.collect()
    name = f"wgb{secrets.token_hex(3)}"
    device = await backend.open(name)
    try:
        free = _free_bytes()
        await device.configure(DeviceConfig(PrivateKey.generate(), 0))
        add_s, add_cpu_s = await _timed(device, lambda: _add(device, configs))
        taken = free - _free_bytes()
        reads = [await _timed(device, device.read) for _ in range(READINGS)]
        assert len((await device.read()).peers) == peers
    finally:
        await device.close()
        await backend.remove(name)
    return {
        "backend": backend.name, "peers": peers, "add_s": add_s, "add_cpu_s": add_cpu_s,
        "read_s": median(wall for wall, _ in reads), "read_cpu_s": median(cpu for _, cpu in reads),
        "bytes": taken,
    }  # fmt: skip


async def _add(device: Device, configs: list[PeerConfig]) -> None:
    for start in range(0, len(configs), BATCH):
        await device.configure(DeviceConfig(peers=tuple(configs[start : start + BATCH])))


async def _timed(device: Device, what: Any) -> tuple[float, float]:
    pids = (os.getpid(), *_carriers(device))
    began, used = now(), Usage.of(*pids).cpu_s
    await what()
    return now() - began, Usage.of(*pids).cpu_s - used


async def _main(sizes: list[int]) -> None:
    backends: list[Backend] = [UserspaceBackend()]
    if await kernel.available():
        backends.append(kernel.KernelBackend())
    for peers in sizes:
        for backend in backends:
            print(json.dumps(await measure(backend, peers)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="+", default=[1000, 10_000])
    asyncio.run(_main(parser.parse_args().peers))
