"""Keeps the peers of the control interface equal to the table of enrolled peers."""

import asyncio
import errno
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from wgmap import clock
from wgmap.addresses import Endpoint, IPAddress
from wgmap.log import Log
from wgmap.wg.device import (
    Device,
    DeviceConfig,
    DeviceError,
    DeviceState,
    Look,
    PeerConfig,
)
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces import saved as endpoints_file
from wgmap_cluster.interfaces.plan import BATCH, ControlPlan, Silence, reachable
from wgmap_cluster.interfaces.reading import DeviceReader

if TYPE_CHECKING:
    from wgmap.wg.keys import PublicKey

CACHED_S = 1.0  # how old a reading may be that says yes
LAST_S = 60.0  # and one for who repeats what was found right before
COUNT_CACHED_S = 2.0
CHECK_S = 60.0  # how often the device itself is compared with the table
RETRY_S = 0.2
MAX_FAILURES = 5
CALLS = 50  # handshakes that a rebooted server starts, ...
CALL_PAUSE_S = 0.05  # ... and then a pause: a thousand a second
_LOG = Log("interfaces")
_GONE = {errno.ENODEV, errno.EBADF}


class ControlPeers:
    """The peers of one control device; give it the table, then ``run`` it."""

    def __init__(self, device: Device, saved: Path | None = None) -> None:
        """Take a device, and a file that keeps its peers' endpoints for after a reboot."""
        self._device = device
        self._states = DeviceReader(device.read)
        self._looks = DeviceReader(device.look)
        self._plan = ControlPlan()
        self._saved = saved
        self._written: dict[PublicKey, Endpoint] = {}
        if saved is not None:
            self._written = endpoints_file.load(saved)
            self._plan.remember(self._written)
        self._silence = Silence()
        self._configured_at = 0.0  # when peers were changed last
        self._given = asyncio.Event()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()

    def replace(self, rows: Mapping[str, PeerRow]) -> None:
        """Take the whole table of peers, at the start (nothing happens before) or after a restore.

        Only a table that was restored: peers that it lacks are removed.
        """
        self._plan.replace(rows)
        self._given.set()
        self._woken()

    def change(self, name: str, row: PeerRow | None) -> None:
        """Take a committed change of the table; None: the row is gone."""
        self._plan.change(name, row)
        self._woken()

    async def run(self) -> None:
        """Keep the device equal to the table; raises DeviceError when it is gone or broken."""
        await self._given.wait()
        failures = 0
        while True:
            try:
                await self._round()
                failures = 0
            except DeviceError as error:
                failures += 1
                if error.errno in _GONE or failures >= MAX_FAILURES:
                    raise
                await asyncio.sleep(RETRY_S * failures)

    async def settled(self) -> None:
        """Wait until everything that was told so far is on the device."""
        await self._settled.wait()

    async def is_outer(self, control: IPv6Address, rloc: IPAddress) -> bool:
        """Tell whether ``rloc`` is the address from which that control tunnel reaches us.

        A tunnel that moved just before it asked is seen where it is now: a no never comes from
        a reading that was older than the question. Raises DeviceError.
        """
        if self._was_outer(control, rloc):
            return True
        await self._looks.underway()  # it may have come to this tunnel after the move
        if self._was_outer(control, rloc):
            return True
        return _address(await self.outer_endpoint(control)) == rloc

    def _was_outer(self, control: IPv6Address, rloc: IPAddress) -> bool:
        recent = self._looks.recent(CACHED_S)
        return recent is not None and _address(self._endpoint(control, recent)) == rloc

    def last_outer(self, control: IPv6Address) -> IPAddress | None:
        """Return where that control tunnel was when the device was last looked at.

        For what is worth no look of its own: it may be LAST_S old. None where it is not known.
        Raises DeviceError.
        """
        recent = self._looks.recent(LAST_S)
        if recent is None:
            self._looks.refresh()
            return None
        return _address(self._endpoint(control, recent))

    async def outer_endpoint(self, control: IPv6Address) -> Endpoint | None:
        """Return where that control tunnel is now, if it ever was up; raises DeviceError."""
        return self._endpoint(control, await self._looks.fresh())

    async def reachable(self) -> int:
        """Count the agents with a handshake younger than 180 s; raises DeviceError.

        Never from before the last change of the peers: those that were removed and added again
        have lost their sessions.
        """
        since_change = clock.now() - self._configured_at
        recent = self._looks.recent(min(COUNT_CACHED_S, since_change))
        look = recent or await self._looks.fresh()
        wall = time.clock_gettime(time.CLOCK_REALTIME)
        return await asyncio.to_thread(reachable, self._plan.wanted(), look, wall)

    def _endpoint(self, control: IPv6Address, look: Look) -> Endpoint | None:
        key = self._plan.key_of(control)
        peer = None if key is None else look.peer(key)
        return None if peer is None else peer.endpoint

    def _woken(self) -> None:
        self._settled.clear()
        self._wake.set()

    async def _round(self) -> None:
        """Compare with the device itself, then follow the table until the next comparison."""
        await self._check()
        try:
            async with asyncio.timeout(CHECK_S):
                while True:
                    self._wake.clear()
                    await self._apply()
                    self._settled.set()
                    await self._wake.wait()
        except TimeoutError:
            return

    async def _check(self) -> None:
        state = await self._states.fresh()
        self._plan.observe(state)
        await asyncio.sleep(0)  # with 100,000 peers each of these takes a while
        now = clock.now()
        self._silence.observe(now, state)
        renewals = [
            self._plan.renewal(state.peers[key]) for key in self._silence.due(now, BATCH // 2)
        ]
        changes = [peer for pair in renewals if pair is not None for peer in pair]
        await self._configure([*changes, *self._plan.quieted(state)])
        if self._saved is not None:
            await asyncio.to_thread(self._save, self._saved, state)

    def _save(self, path: Path, state: DeviceState) -> None:
        endpoints = {key: p.endpoint for key, p in state.peers.items() if p.endpoint is not None}
        # Right after a reboot the device knows less than the file, and has no peers yet.
        kept = {k: e for k, e in self._written.items() if self._plan.wants(k)}
        endpoints = {**kept, **endpoints}
        if endpoints == self._written:
            return
        try:
            endpoints_file.save(path, endpoints)
        except OSError as error:
            _LOG.warning("endpoints not saved", path=str(path), reason=error.strerror)
            return
        self._written = endpoints

    async def _configure(self, changes: Sequence[PeerConfig]) -> None:
        for start in range(0, len(changes), BATCH):
            peers = tuple(changes[start : start + BATCH])
            await self._change(peers)

    async def _change(self, peers: tuple[PeerConfig, ...]) -> None:
        await self._device.configure(DeviceConfig(peers=peers))
        self._configured_at = clock.now()

    async def _apply(self) -> None:
        while batch := self._plan.batch(CALLS if self._plan.calling else BATCH):
            await self._change(batch)
            calling = self._plan.calling
            self._plan.done(batch)
            if calling:
                await asyncio.sleep(CALL_PAUSE_S)


def _address(endpoint: Endpoint | None) -> IPAddress | None:
    return None if endpoint is None else endpoint.address
