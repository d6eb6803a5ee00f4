"""A child that hangs: ``python -m support.silent_child [BEATS]`` beats so often, then never."""

import asyncio
import contextlib
import sys
import time

from wgmap_cluster.supervisor import life


async def _beat(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await life.beat()


if __name__ == "__main__":
    asyncio.run(_beat(float(sys.argv[1])))
    while True:
        time.sleep(3600)
