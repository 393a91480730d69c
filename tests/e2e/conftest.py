"""Fixtures of the end-to-end tests: a cluster for one test, or a single node for the tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.node import PROGRAM, Node

MakeCluster = Callable[..., Cluster]
_clusters = pytest.StashKey[list[Cluster]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not PROGRAM.exists():
            item.add_marker(pytest.mark.skip(reason=f"{PROGRAM} is missing: run make install"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of every node's log."""
    report = yield
    if call.when == "call" and report.failed:
        for cluster in item.stash.get(_clusters, []):
            report.sections.append(("raftkv logs", cluster.logs()))
    return report


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeCluster]:
    """`make_cluster(setting=value, …)` gives an empty cluster that ends with the test."""
    made: list[Cluster] = []
    request.node.stash[_clusters] = made

    def make(**settings: object) -> Cluster:
        directory = tmp_path / f"cluster{len(made)}"
        directory.mkdir()
        made.append(Cluster(directory, **settings))
        return made[-1]

    yield make
    wrong = [problem for cluster in made for problem in cluster.end()]
    assert not wrong, "\n\n".join(wrong)


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """An empty cluster with default settings."""
    return make_cluster()


@pytest.fixture(scope="module")
def lone_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of its own for all tests of a file; short time limits for requests, so that a stall can be tested."""
    cluster = Cluster(tmp_path_factory.mktemp("lone"), body_timeout_ms=700, max_value_bytes=65536, max_key_bytes=256)
    yield cluster.start("node1")[0]
    wrong = cluster.end()
    assert not wrong, "\n\n".join(wrong)
