"""One measurement, and the median of several."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What a load generator saw in one turn. `cpu_us` is the cluster's processor time a request."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    error_count: int = 0
    cpu_us: float = 0.0


def median(samples: Sequence[Sample]) -> Sample:
    """Field by field; errors are added up."""
    return Sample(
        requests_per_s=statistics.median(s.requests_per_s for s in samples),
        p50_ms=statistics.median(s.p50_ms for s in samples),
        p99_ms=statistics.median(s.p99_ms for s in samples),
        error_count=sum(s.error_count for s in samples),
        cpu_us=statistics.median(s.cpu_us for s in samples),
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Nearest rank; `ordered` ascending and not empty."""
    return ordered[min(len(ordered) - 1, max(0, round(fraction * len(ordered)) - 1))]


def spread_percent(values: Sequence[float]) -> float:
    """How far apart the rounds were: (highest - lowest) / median, in percent."""
    return 100.0 * (max(values) - min(values)) / statistics.median(values)
