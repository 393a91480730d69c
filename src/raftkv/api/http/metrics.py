"""Counts and latencies of HTTP, cheap enough for every request.

One list of plain ints for each method, route and status; the Prometheus families are made from them when
somebody asks. Turned down: prometheus_client's own Counter and Histogram. With their locks and floats they cost
about 3 µs a request, more than finding the value.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from raftkv.api.http.limits import Waiting

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class RouteStats:
    """Requests of one method, route and status. The fast lane adds to the fields itself."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class HttpMetrics(Collector):
    """Register it with the node's registry. `connections` and `in_flight` are asked when metrics are."""

    def __init__(self, connections: Callable[[], int] = int, in_flight: Callable[[], int] = int) -> None:
        self.connections = connections
        self.in_flight = in_flight
        self.refused_connections = 0
        self._stats: dict[tuple[str, str, int], RouteStats] = {}
        self._dropped = dict.fromkeys(Waiting, 0)

    def stats(self, method: str, route: str, status: int) -> RouteStats:
        """`route` is a pattern such as `/store/{key}`, never a path: the number of series stays bounded."""
        found = self._stats.get((method, route, status))
        if found is None:
            found = self._stats[method, route, status] = RouteStats()
        return found

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        self.stats(method, route, status).observe(seconds)

    def dropped(self, waiting: Waiting) -> None:
        """A connection was ended because it waited too long for this."""
        self._dropped[waiting] += 1

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "raftkv_http_requests",
            "Requests answered, by method, route and status.",
            labels=["method", "route", "status"],
        )
        latency = HistogramMetricFamily(
            "raftkv_http_request_seconds", "Seconds from the whole request to its answer.", labels=["method", "route"]
        )
        merged: dict[tuple[str, str], RouteStats] = {}
        for (method, route, status), stats in sorted(self._stats.items()):
            requests.add_metric([method, route, str(status)], sum(stats.buckets))
            total = merged.setdefault((method, route), RouteStats())
            total.buckets = [a + b for a, b in zip(total.buckets, stats.buckets, strict=True)]
            total.seconds += stats.seconds
        for labels, total in merged.items():
            latency.add_metric(list(labels), _cumulative(total.buckets), total.seconds)
        yield requests
        yield latency
        yield GaugeMetricFamily("raftkv_http_connections", "HTTP connections that are open.", self.connections())
        yield GaugeMetricFamily("raftkv_http_requests_in_flight", "Requests that are being answered.", self.in_flight())
        yield CounterMetricFamily(
            "raftkv_http_connections_refused", "Connections refused over max_connections.", self.refused_connections
        )
        dropped = CounterMetricFamily(
            "raftkv_http_connections_timed_out",
            "Connections ended after waiting too long, by for what.",
            labels=["waiting"],
        )
        for waiting, count in self._dropped.items():
            dropped.add_metric([waiting.value], count)
        yield dropped


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    found, running = [], 0
    for bound, count in zip((*BOUNDS_S, float("inf")), buckets, strict=True):
        running += count
        found.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
    return found
