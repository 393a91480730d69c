"""What must be true at the end of a run, and what a run must have seen to count.

All faults are over, every node runs and is a voter. Then every node must come to the same state, to the last byte on
its disk; no write that was refused may have happened; and all that the clients saw must be linearizable.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raftkv.sim.history import Kind as OperationKind
from raftkv.sim.linearizability import check
from raftkv.sim.order_search import Undecided
from tests.e2e.waiting import eventually
from tests.soak.clients import KEYS, Client, Record, name_of
from tests.soak.cluster import SoakCluster, SoakNode
from tests.soak.plan import Kind
from tests.soak.revisions import problems_with

LEVEL_TIMEOUT_S = 60.0
SHOWN_COUNT = 10

MINIMUM_PER_MINUTE: Mapping[str, int] = {
    "operations": 3000,
    "reads that found a value": 1000,
    "snapshots installed": 1,
    "leaders": 3,
    "connections and pieces that a partition met": 20,
    **dict.fromkeys((kind.value for kind in Kind), 1),
}
"""A run with less of anything, for each whole minute of its faults, has shown too little and counts as failed."""


def lacking(figures: Mapping[str, int], seconds: float) -> list[str]:
    """Which minimums were not reached, of what has a figure: faults that this network cannot make have none."""
    minutes = max(1, int(seconds / 60))
    return [
        f"too little happened: {figures[name]} {name}, at least {least * minutes}"
        for name, least in MINIMUM_PER_MINUTE.items()
        if name in figures and figures[name] < least * minutes
    ]


def read_everything(cluster: SoakCluster, now_s: Callable[[], float]) -> Record:
    """Every key through every node, linearizably; all must answer, now that nothing disturbs them."""
    cluster.wait_level(timeout_s=LEVEL_TIMEOUT_S)
    seen = Record()
    for node in cluster.all:
        client = Client(f"end-{node.node_id}", [node], now_s, seed=0)
        for key in KEYS:
            read = functools.partial(client.read, node.node_id, key)
            eventually(read, f"{node.node_id} reads {key}", LEVEL_TIMEOUT_S)
        client.close()
        seen.merge(client.record)
    return seen


def differences(cluster: SoakCluster, refused: set[bytes]) -> list[str]:
    """Between the nodes' own states, once all have applied the same; and values there that were refused."""
    states = eventually(lambda: _equal_positions(cluster), "all nodes stand at the same index", LEVEL_TIMEOUT_S)
    first, problems = next(iter(states)), []
    for node_id, state in states.items():
        if state != states[first]:
            problems.append(f"{first} and {node_id} differ: {states[first]} and {state}")
        problems += [
            f"{node_id} holds {value} under {key}, which it had refused"
            for key, value in state.items()
            if str(value).encode() in refused
        ]
    return problems


def disk_differences(cluster: SoakCluster) -> list[str]:
    """Stops all nodes, the leader last, so that nothing is added; then what is on the disks must be sound and equal."""
    leader = cluster.leader()
    for node in (*(node for node in cluster.all if node is not leader), leader):
        node.stop()
    with ThreadPoolExecutor() as pool:
        reports = list(pool.map(SoakNode.inspect, cluster.all))
    states = {node.node_id: report["state"] for node, report in zip(cluster.all, reports, strict=True)}
    digests = {(state["applied_up_to"], state["digest"]) for state in states.values()}
    return [] if len(digests) == 1 else [f"the disks differ: {states}"]


def judge(record: Record) -> list[str]:
    """What no single copy of the data explains, and what was seen of writes that were refused or that nobody made."""
    try:
        violation = check(record.operations)
        problems = [] if violation is None else [str(violation)]
    except Undecided as undecided:
        problems = [str(undecided)]
    problems += itertools.islice(problems_with(record.sights), SHOWN_COUNT)
    written = {operation.value for operation in record.operations if operation.kind is OperationKind.PUT}
    seen = record.local_values | {op.value for op in record.operations if op.kind is OperationKind.GET and op.value}
    refused, unheard = seen & record.refused, seen - record.refused - written
    problems += [f"refused, but seen: {value!r}" for value in sorted(refused)]
    return problems + [f"written by nobody, but seen: {value!r}" for value in sorted(unheard)]


def _equal_positions(cluster: SoakCluster) -> dict[str, dict[str, Any]]:
    """By node what it holds, and {} unless all were at one applied index and revision all the time."""
    states: dict[str, dict[str, Any]] = {}
    positions = set()
    for node in cluster.all:
        state = states[node.node_id] = {}
        for key in KEYS:
            answer = node.fetch(key)
            assert answer.status in {200, 404}, answer
            positions.add((answer.headers["x-raftkv-applied-index"], answer.headers["x-raftkv-revision"]))
            state[key] = name_of(answer.json["data"]["value"]) if answer.status == 200 else None
    return states if len(positions) == 1 else {}
