"""A latency histogram for hot paths: plain integers, summed up only when somebody asks.

`prometheus_client.Histogram.observe` takes a lock and costs more than a whole key lookup; this one is a
bisection and two additions, for one thread.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily

LATENCY_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """Counts of observations below ascending bounds, in seconds."""

    __slots__ = ("_bounds", "_counts", "count", "sum_s")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0
        self.count = 0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum_s += seconds
        self.count += 1

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Add this histogram as one series of `family`."""
        buckets: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), running))
        family.add_metric(labels, buckets, self.sum_s)
