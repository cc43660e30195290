"""Metric targets: what counts as met, what two breaches in a row mean, and the catalog of metrics (V-08, V-09)."""

import json
import math
import operator
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models.domain.errors import InvalidInput
from models.domain.plain_yaml import problems, read_mapping

DEFAULT_WINDOW_MINUTES = 10.0
MAX_PROBE_BYTES = 64 * 1024
MAX_PROBE_METRICS = 500

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_PERCENTILE = re.compile(r"_p\d{2,4}$")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_METRIC_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,255}")
_POST = (
    "post an observation first (`POST /api/v1/metrics/observations`, by nobody whose own work this is), then retry the "
    "mission"
)
_NO_PROBE = f"{_POST}, or give the repository a `probe` that measures it"
_NOT_PROBED = f"the probe printed no such metric: let it, or {_POST}"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _metric_id(name: str) -> str:
    if not _METRIC_ID.fullmatch(name):
        raise ValueError("must be a metric id: letters, digits and _ . : / -")
    return name


Comparator = Literal["<", "<=", ">", ">=", "==", "!="]
Finite = Annotated[float, AfterValidator(_finite)]
MetricId = Annotated[str, AfterValidator(_metric_id)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Protocol):
    """A bound on a metric over a rolling window in minutes, such as `models.contracts.missions.MetricTarget`."""

    @property
    def metric_id(self) -> str: ...
    @property
    def comparator(self) -> Comparator: ...
    @property
    def target(self) -> float: ...
    @property
    def rolling_window_minutes(self) -> float: ...


class Bound(_Frozen):
    """A target of our own making."""

    metric_id: MetricId
    comparator: Comparator
    target: Finite
    rolling_window_minutes: float = DEFAULT_WINDOW_MINUTES


class Sample(_Frozen):
    """One value of a metric at one (aware) time; `source` reported it, or is the command of a mission's own."""

    metric_id: str
    value: Finite
    at: datetime
    source: str = ""


class Shortfall(_Frozen):
    """A target that is not met. `observed` is None when there was no sample in the window."""

    metric_id: str
    comparator: Comparator
    target: float
    observed: float | None
    samples: int
    window_minutes: float

    def __str__(self) -> str:
        wanted = f"must be {self.comparator} {self.target:g}"
        if self.observed is None:
            return f"{self.metric_id} {wanted}: no sample in the last {self.window_minutes:g} min"
        return f"{self.metric_id} {wanted}: observed {self.observed:g} over {self.window_minutes:g} min"


class CatalogMetric(_Frozen):
    """What the catalog says of a metric; `unit` is for people."""

    target: Annotated[float, Field(strict=True), AfterValidator(_finite)]
    comparator: Comparator
    unit: Annotated[str, StringConstraints(max_length=32)]


class Catalog(_Frozen):
    """The known metrics by id."""

    metrics: dict[MetricId, CatalogMetric]


def observed(metric_id: str, values: Sequence[float]) -> float:
    """Sum up a window: the mean, but for percentiles (ids ending `_pNN`) the maximum. `values` must not be empty."""
    if _PERCENTILE.search(metric_id):
        return max(values)
    # Exact, unlike `fmean`: the mean of equal values is that value, and huge values do not overflow.
    return float(statistics.mean(values))


def holds(value: float, comparator: Comparator, target: float) -> bool:
    """Whether a value keeps a bound."""
    return _HOLDS[comparator](value, target)


def unmet_targets(
    targets: Iterable[Target], samples: Iterable[Sample], now: datetime, doubted: Collection[str] = ()
) -> list[Shortfall]:
    """List the targets that the samples do not prove to be met; a window without samples proves nothing.

    Args:
        doubted: sources whose samples may speak against a target, each by itself, but not for it.
    """
    by_id: dict[str, list[Sample]] = {}
    for sample in samples:
        by_id.setdefault(sample.metric_id, []).append(sample)
    found = (_unmet(target, by_id.get(target.metric_id, ()), now, doubted) for target in targets)
    return [shortfall for shortfall in found if shortfall is not None]


def missing_proof(unmet: Iterable[Shortfall], broken: str | None) -> str:
    """Say what speaks against the targets, and where samples are missing, how to bring some; nothing if nothing does.

    Args:
        broken: why the probe broke at the patch; empty where it did not, None where there is no probe.
    """
    found = list(unmet)
    said = [str(shortfall) for shortfall in found]
    if broken:
        said.insert(0, f"{broken.rstrip('.')} (at the patch)")
    elif any(shortfall.observed is None for shortfall in found):
        said.append(_NO_PROBE if broken is None else _NOT_PROBED)
    return "; ".join(said)


def met_in_words(targets: Iterable[Target], samples: Collection[Sample], now: datetime) -> str:
    """Say by which numbers targets are met."""
    return "; ".join(_met(target, _window(target, samples, now)) for target in targets)


def breaches(shortfalls: Iterable[Shortfall]) -> tuple[str, ...]:
    """Name the metrics seen outside their bounds; one without samples was not seen."""
    return tuple(dict.fromkeys(found.metric_id for found in shortfalls if found.observed is not None))


def lasting(before: Collection[str], now: Iterable[str]) -> tuple[str, ...]:
    """Name the metrics breached in two looks in a row: an anomaly."""
    return tuple(metric_id for metric_id in now if metric_id in before)


def reporters(samples: Iterable[Sample], metrics: Collection[str]) -> frozenset[str]:
    """Name the principals who reported samples of these metrics.

    A mission's own commands have names of three parts and more, `probe/<time>/<look>`; a visitor's has two.
    """
    return frozenset(found.source for found in samples if found.metric_id in metrics and found.source.count("/") < 2)


def parse_catalog(data: bytes) -> Catalog:
    """Read a metrics catalog: `metrics.<id>.{target, comparator, unit}`.

    Raises:
        InvalidInput: `metrics_catalog_invalid`, naming the entry.
    """
    values = read_mapping(data, "metrics catalog", "metrics_catalog_invalid")
    try:
        return Catalog.model_validate(values)
    except ValidationError as error:
        message = f"metrics catalog: {problems(error, CatalogMetric)}."
        raise InvalidInput("metrics_catalog_invalid", message) from None


def default_targets(catalog: Catalog, symptoms: Iterable[str | None], targets: Iterable[Target]) -> tuple[Bound, ...]:
    """List the catalog's targets for metrics a mission names as symptoms and gives no target of its own (MISS-32)."""
    given = {target.metric_id for target in targets}
    wanted = [name for name in dict.fromkeys(symptoms) if name in catalog.metrics and name not in given]
    return tuple(_bound(name, catalog.metrics[name]) for name in wanted if name is not None)


def parse_measurements(data: bytes, name: str) -> dict[str, float]:
    """Read what a probe printed: one JSON object of numbers, or lines of `metric_id value`.

    Raises:
        InvalidInput: `measurements_invalid`; the message begins with `name` and shows the line.
    """
    if len(data) > MAX_PROBE_BYTES:
        raise _unreadable(name, f"{len(data)} bytes; at most {MAX_PROBE_BYTES} are read")
    text = data.decode("utf-8", "replace").strip()
    pairs = _json_pairs(text, name) if text.startswith("{") else _line_pairs(text, name)
    if not pairs:
        raise _unreadable(name, "nothing was measured: print `metric_id value` lines or one JSON object")
    if len(pairs) > MAX_PROBE_METRICS:
        raise _unreadable(name, f"{len(pairs)} values; at most {MAX_PROBE_METRICS} are read")
    found: dict[str, float] = {}
    for metric_id, value in pairs:
        if metric_id in found:
            raise _unreadable(name, f"{metric_id!r} is given twice")
        found[metric_id] = _measured(metric_id, value, name)
    return found


def _unmet(target: Target, samples: Sequence[Sample], now: datetime, doubted: Collection[str]) -> Shortfall | None:
    """Hold the samples that nobody doubts against a target, and those of each other source: none drowns another's."""
    by_source: dict[str, list[Sample]] = {"": []}
    for sample in samples:
        by_source.setdefault(sample.source if sample.source in doubted else "", []).append(sample)
    proven = _shortfall(target, by_source.pop(""), now)
    against = (_shortfall(target, own, now) for own in by_source.values())
    return next((shortfall for shortfall in against if shortfall and shortfall.observed is not None), proven)


def _shortfall(target: Target, samples: Iterable[Sample], now: datetime) -> Shortfall | None:
    values = _window(target, samples, now)
    value = observed(target.metric_id, values) if values else None
    if value is not None and holds(value, target.comparator, target.target):
        return None
    return Shortfall(
        metric_id=target.metric_id,
        comparator=target.comparator,
        target=target.target,
        observed=value,
        samples=len(values),
        window_minutes=target.rolling_window_minutes,
    )


def _window(target: Target, samples: Iterable[Sample], now: datetime) -> list[float]:
    since = now - timedelta(minutes=target.rolling_window_minutes)
    return [s.value for s in samples if s.metric_id == target.metric_id and since < s.at <= now]


def _met(target: Target, values: Sequence[float]) -> str:
    value = observed(target.metric_id, values)
    return f"{target.metric_id} is {value:g}, must be {target.comparator} {target.target:g} ({len(values)} sample(s))"


def _bound(metric_id: str, entry: CatalogMetric) -> Bound:
    return Bound(metric_id=metric_id, comparator=entry.comparator, target=entry.target)


def _json_pairs(text: str, name: str) -> list[tuple[str, Any]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise _unreadable(name, "it begins with { and is not one JSON object") from None
    return [(str(metric_id), value) for metric_id, value in pairs]


def _line_pairs(text: str, name: str) -> list[tuple[str, Any]]:
    words = [line.split() for line in text.splitlines() if line.strip()]
    for line in words:
        if len(line) != 2:
            raise _unreadable(name, f"{' '.join(line)[:80]!r} is not `metric_id value`")
    return [(line[0], float(line[1]) if _NUMBER.fullmatch(line[1]) else line[1]) for line in words]


def _measured(metric_id: str, value: Any, name: str) -> float:
    if not _METRIC_ID.fullmatch(metric_id):
        raise _unreadable(name, f"{metric_id[:80]!r} is not a metric id: letters, digits and _ . : / -")
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _unreadable(name, f"{metric_id!r} has no finite number: {str(value)[:80]!r}")
    return number


def _unreadable(name: str, why: str) -> InvalidInput:
    return InvalidInput("measurements_invalid", f"{name}: {why}.")
