"""The routes by their patterns, which are also the `route` label of metrics."""

from __future__ import annotations

STORE = "/store"
STORE_KEY = "/store/{key}"
JOIN = "/raft/join"
REMOVE = "/raft/remove"
TRANSFER = "/raft/transfer"
STATS = "/raft/stats"
HEALTH = "/health"
READY = "/ready"
METRICS = "/metrics"
PPROF = "/debug/pprof"
PPROF_PROFILE = "/debug/pprof/{profile}"

OTHER = "other"
"""Requests that match no route, or that never became a request."""

ALL = (STORE, STORE_KEY, JOIN, REMOVE, TRANSFER, STATS, HEALTH, READY, METRICS, PPROF, PPROF_PROFILE)
