"""Opens the data device, or both while the data key rotates."""

from contextlib import AsyncExitStack

from wgmap.net.netlink import Network
from wgmap.wg.device import Backend
from wgmap.wg.keys import PrivateKey
from wgmap_agent.config import AgentConfig
from wgmap_agent.runner import interfaces, keys
from wgmap_agent.runner.injector import Injector
from wgmap_agent.runner.interfaces import DataRoutes, Place
from wgmap_agent.runner.pair import Half, Pair


class DataSide:
    """The data interfaces of an agent: which there are, with which keys, and how they change."""

    def __init__(
        self, config: AgentConfig, backend: Backend, network: Network, key: PrivateKey
    ) -> None:
        """``key``: the data key that is in force."""
        self._config = config
        self._backend = backend
        self._network = network
        self._key = key
        self._place: Place = config.data.places[0]

    async def registered(self) -> tuple[PrivateKey, int]:
        """Return the key to register and its port: the new one where a rotation is under way.

        Raises ConfigError, DeviceError.
        """
        self._place = await interfaces.place_of(self._backend, self._config, self._key.public)
        directory = self._config.agent.state_dir
        if keys.has_next(directory):
            return keys.make_next(directory), self.next_port
        await interfaces.remove_other(self._backend, self._config, self._place)
        return self._key, self._place[1]

    @property
    def next_port(self) -> int:
        """The port of the interface that is rotated to."""
        return self._other[1]

    async def open(self, stack: AsyncExitStack) -> Pair:
        """Open what there must be; raises DeviceError, NetworkError."""
        device, state = await interfaces.open_data(
            self._backend, self._network, self._config, self._key, self._place
        )
        half = Half(device, self._routes(self._place), Injector(self._place[0]))
        pair = Pair(half)
        stack.push_async_callback(pair.close)
        await half.routes.adopt(state)
        directory = self._config.agent.state_dir
        if keys.has_next(directory):
            await pair.rotate_to(await self.open_next(keys.make_next(directory)))
        return pair

    async def open_next(self, key: PrivateKey) -> Half:
        """Open the interface that is rotated to; raises DeviceError, NetworkError."""
        device, _ = await interfaces.open_data(
            self._backend, self._network, self._config, key, self._other
        )
        return Half(device, self._routes(self._other), Injector(self._other[0]))

    async def rotated(self, key: PrivateKey) -> None:
        """Have the new key in force, and remove the interface of the old one; DeviceError."""
        self._key, self._place = key, self._other
        await interfaces.remove_other(self._backend, self._config, self._place)

    @property
    def _other(self) -> Place:
        first, second = self._config.data.places
        return second if self._place == first else first

    def _routes(self, place: Place) -> DataRoutes:
        return DataRoutes(self._network, self._config, place[0])
