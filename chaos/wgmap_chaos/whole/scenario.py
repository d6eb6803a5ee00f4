"""What a run does, as a TOML file; an unknown key is an error that names it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from wgmap.config import Section

Seconds = Annotated[float, Field(ge=0, le=3600)]
Rate = Annotated[float, Field(ge=0, le=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class RunSection(Section):
    """How large and how long."""

    seed: int = 1
    minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 5.0
    servers: Annotated[int, Field(ge=1, le=9)] = 3
    agents: Annotated[int, Field(ge=2, le=40)] = 3
    warm_s: Seconds = 15.0  # load without faults, at the beginning
    upgrade_from: str = ""  # the other release: a commit; absent: a copy of what runs


class LoadSection(Section):
    """Who does what how often; rates are a second, of all together."""

    lights: Annotated[int, Field(ge=2, le=2000)] = 200
    registers: Rate = 6.0
    lookups: Rate = 30.0
    refreshes: Rate = 8.0
    operators: Rate = 0.5
    flow: Rate = 20.0  # packets of each flow
    contacts: Rate = 0.5
    rotations: Rate = 0.05  # of agents' data keys
    askers: Annotated[int, Field(ge=1, le=2000)] = 3  # clients that ask: they are told of changes
    probes: Annotated[float, Field(ge=0, le=100)] = 20.0  # calls of each kind, for the gaps alone


class FaultsSection(Section):
    """What befalls the lab."""

    kinds: tuple[str, ...] = ()  # none: all
    hold_s: tuple[Seconds, Seconds] = (1.0, 8.0)
    calm_s: tuple[Seconds, Seconds] = (1.0, 5.0)
    together: Share = 0.25  # how often two come at once

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("hold_s", "calm_s"):
            least, most = getattr(self, name)
            if least > most:
                msg = f"{name}: {least} is more than {most}"
                raise ValueError(msg)
        return self


class BoundsSection(Section):
    """What is promised; the judges hold the product to it."""

    converge_s: Seconds = 60.0  # after the last heal
    push_s: Seconds = 5.0  # until everybody who asked is told of a change
    data_grace_s: Seconds = 15.0  # after a fault of the data plane
    rotation_gap_s: Seconds = 0.5  # of a flow while the key of one end rotates
    grown_mb: Annotated[float, Field(gt=0)] = 64.0
    grown_fds: Annotated[int, Field(gt=0)] = 64


class Scenario(Section):
    """The whole file."""

    run: RunSection = RunSection()
    load: LoadSection = LoadSection()
    faults: FaultsSection = FaultsSection()
    bounds: BoundsSection = BoundsSection()
