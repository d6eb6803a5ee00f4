"""A wire with delay between two namespaces of a test.

[left] ---- veth ---- [wire: a relay in user space] ---- veth ---- [right]
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.netns import Namespace, Netbed, wait_until
from wgmap_chaos.lab.relay import Quality, RelayControl


@contextmanager
def wire(
    bed: Netbed,
    ends: tuple[Namespace, Namespace],
    addresses: tuple[Iterable[str], Iterable[str]],
    quality: Quality,
    folder: Path,
) -> Iterator[RelayControl]:
    """Join two namespaces by a wire of that quality; addresses are ADDRESS/LENGTH."""
    middle = bed.namespace("w")
    ports = [
        bed.veth(end, middle, own, label=label)[1]
        for end, own, label in zip(ends, addresses, "xy", strict=True)
    ]
    control = folder / "relay.sock"
    bed.popen(
        middle,
        *(sys.executable, "-m", "wgmap_chaos.lab.relay", "--control", str(control)),
        *("--delay", str(quality.delay_ms), "--loss", str(quality.loss_percent)),
        *(f"{ports[0]}:{ports[1]}", f"{ports[1]}:{ports[0]}"),
    )
    wait_until(control.exists, "the relay")
    yield RelayControl(control)
