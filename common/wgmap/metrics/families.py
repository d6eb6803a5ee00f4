"""What is on a page for Prometheus: families of numbers, each with a name and a meaning.

Names follow its conventions: ``wgmap_agent_..._total`` counts, base units (seconds, bytes), no
label that grows with the number of peers. What is counted is counted elsewhere; here it is shown.
"""

import bisect
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FINE_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SUM = ".sum_us"
_BOUND = ".le_us."


class Counted(NamedTuple):
    """A number that is kept under a name elsewhere, as it is shown.

    A name that ends with ``*`` stands for all that begin so: the rest is the value of ``label``.
    """

    name: str
    text: str
    label: str = ""
    size: bool = False  # it goes up and down

    @property
    def stem(self) -> str | None:
        """What the names that are meant begin with; None: one name is meant."""
        return self.name[:-1] if self.name.endswith("*") else None


Catalogue: TypeAlias = tuple[Counted, ...]


class Histogram:
    """How often something took how long (seconds)."""

    def __init__(self, buckets: tuple[float, ...] = BUCKETS_S) -> None:
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one; takes well under a microsecond."""
        self._counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, text: str) -> Metric:
        """Return it as it is shown."""
        return _histogram(
            name, text, zip(self._bounds, self._counts, strict=False), self._counts[-1], self._sum
        )

    def flat(self, name: str) -> dict[str, int]:
        """Return it as named whole numbers, for whoever passes on nothing else: see ``unflat``."""
        if not any(self._counts):
            return {}
        bounds = [*(round(bound * 1e6) for bound in self._bounds), 0]  # 0: above all
        names = (f"{name}{_BOUND}{bound}" for bound in bounds)
        return dict(zip(names, self._counts, strict=True)) | {
            f"{name}{_SUM}": round(self._sum * 1e6)
        }


def unflat(name: str, text: str, source: str, values: Mapping[str, int]) -> Metric:
    """Show what ``flat`` wrote under the name ``source``."""
    counts = _bounds(source, values)
    above = counts.pop(0, 0)
    pairs = [(bound / 1e6, n) for bound, n in sorted(counts.items())]
    return _histogram(name, text, pairs, above, values.get(source + _SUM, 0) / 1e6)


def quantile(source: str, values: Mapping[str, int], share: float) -> float | None:
    """Return an upper bound (seconds) of that share of what ``flat`` wrote; None: nothing timed.

    What is above the last bound counts as that bound.
    """
    counts = _bounds(source, values)
    wanted = share * sum(counts.values())
    if not wanted:
        return None
    bounds = sorted((bound for bound in counts if bound), key=int)
    for bound in bounds:
        wanted -= counts[bound]
        if wanted <= 0:
            return bound / 1e6
    return bounds[-1] / 1e6


def total(source: str, values: Mapping[str, int]) -> int:
    """Return how many were timed, of what ``flat`` wrote."""
    return sum(_bounds(source, values).values())


def _bounds(source: str, values: Mapping[str, int]) -> dict[int, int]:
    """Return how many took at most so many microseconds, and more than the bound before."""
    stem = source + _BOUND
    return {int(key.removeprefix(stem)): n for key, n in values.items() if key.startswith(stem)}


def is_flat(name: str) -> bool:
    """Tell whether a name is a part of what ``flat`` wrote."""
    return _BOUND in name or name.endswith(_SUM)


def counted(prefix: str, catalogue: Catalogue, values: Mapping[str, int]) -> Iterable[Metric]:
    """Show numbers by their names: ``peer.kicked`` is PREFIX_peer_kicked_total.

    All of the catalogue is shown, 0 where nothing was counted, and what is not in it as well.
    """
    single = {one.name: one for one in catalogue if one.stem is None}
    several = [one for one in catalogue if one.stem is not None]
    labelled: dict[str, dict[str, int]] = {one.name: {} for one in several}
    unknown: dict[str, int] = {}
    for name, value in values.items():
        if name in single or is_flat(name):
            continue
        entry = next((one for one in several if name.startswith(one.stem or "")), None)
        if entry is None:
            unknown[name] = value
        else:
            labelled[entry.name][name.removeprefix(entry.stem or "")] = value
    for one in catalogue:
        yield _family(prefix, one, labelled.get(one.name) or values.get(one.name, 0))
    for name, value in unknown.items():
        yield _family(prefix, Counted(name, f"Not described: {name}."), value)


def _family(prefix: str, entry: Counted, values: Mapping[str, int] | int) -> Metric:
    kind = GaugeMetricFamily if entry.size else CounterMetricFamily
    name = _name(prefix, entry.name.removeprefix("now."))
    if entry.stem is None:
        return kind(name, entry.text, value=values if isinstance(values, int) else 0)
    family: Metric = kind(name, entry.text, labels=[entry.label])
    for label, value in values.items() if isinstance(values, Mapping) else ():
        family.add_metric([label], value)  # type: ignore[attr-defined]  # both have it
    return family


def gauge(
    name: str, text: str, values: Mapping[str, float | None] | float | None, label: str = ""
) -> Metric:
    """Show one value, or one for each value of a label; unknown ones are left out."""
    if values is None:
        return GaugeMetricFamily(name, text, labels=())
    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, text, value=values)
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], value)
    return family


def render(families: Iterable[Metric]) -> bytes:
    """Write a page in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _histogram(
    name: str, text: str, counts: Iterable[tuple[float, int]], above: int, total_s: float
) -> Metric:
    total, buckets = 0, []
    for bound, count in counts:
        total += count
        buckets.append((str(bound), total))
    buckets.append(("+Inf", total + above))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total_s)


def _name(prefix: str, name: str) -> str:
    return f"{prefix}_{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}"
