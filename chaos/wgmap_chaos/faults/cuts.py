"""Cuts in a namespace: whose packets are dropped, counted, by nft."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from wgmap_chaos.lab import shell
from wgmap_chaos.lab.errors import LabError

FAMILY = "inet"


async def deafen(netns: str, table: str, unheard: Mapping[str, Iterable[object]]) -> None:
    """Drop what comes from addresses, by the name of who has them; {} heals. Raises LabError."""
    await _drop(netns, table, ("input", "saddr"), unheard)


async def silence(netns: str, table: str, targets: Mapping[str, Iterable[object]]) -> None:
    """Drop what is sent to addresses, by the name of who has them; {} heals. Raises LabError."""
    await _drop(netns, table, ("output", "daddr"), targets)


async def _drop(
    netns: str, table: str, hook: tuple[str, str], whose: Mapping[str, Iterable[object]]
) -> None:
    name, side = hook
    rules = [
        f'{"ip6" if ":" in str(address) else "ip"} {side} {address} counter drop comment "{who}"'
        for who, addresses in whose.items()
        for address in addresses
    ]
    script = f"table {FAMILY} {table} {{}}; delete table {FAMILY} {table}"
    if rules:
        chain = f"chain c {{ type filter hook {name} priority 0; {'; '.join(rules)}; }}"
        script += f"\ntable {FAMILY} {table} {{ {chain}; }}"
    await nft(netns, "-f", "-", text=script + "\n")


async def dropped(netns: str, table: str) -> dict[str, int]:
    """Return how many packets were dropped, by the name of the other end; {} without a cut."""
    with suppress(LabError):
        found = json.loads(await nft(netns, "-j", "list", "table", FAMILY, table))
        counts: dict[str, int] = {}
        for item in found["nftables"]:
            if "rule" in item:
                who, count = _counted(item["rule"])
                counts[who] = counts.get(who, 0) + count
        return counts
    return {}


def _counted(rule: dict[str, Any]) -> tuple[str, int]:
    counters = [part["counter"]["packets"] for part in rule["expr"] if "counter" in part]
    return rule["comment"], counters[0]


async def nft(netns: str, *argv: str, text: str = "") -> str:
    """Run nft in a namespace; raises LabError."""
    process = await asyncio.create_subprocess_exec(
        *shell.inside(netns, ["nft", *argv]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate(text.encode())
    if process.returncode:
        raise LabError(f"nft in {netns}: {said.decode()}")
    return out.decode()
