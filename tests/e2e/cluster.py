"""A cluster of real processes on loopback, for one test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.e2e.curl import NoAnswer
from tests.e2e.node import Node
from tests.e2e.waiting import eventually

_NEVER_IN_A_LOG = ("Traceback (most recent call last)", "InvariantViolation", "was never awaited")


class Cluster:
    """Every node that a test has made, by name. `settings` go to all of them."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.settings = settings
        self.nodes: dict[str, Node] = {}

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    def add(self, node_id: str, **settings: object) -> Node:
        """A node that is not started."""
        self.nodes[node_id] = Node(node_id, self.directory, **{**self.settings, **settings})
        return self.nodes[node_id]

    def start(self, *node_ids: str) -> list[Node]:
        """New nodes, each serving as its own leader."""
        nodes = [self.add(node_id).start() for node_id in node_ids]
        for node in nodes:
            node.wait_ready()
        return nodes

    def form(self, count: int = 3) -> list[Node]:
        """node1 … nodeN, joined to node1 by the published calls."""
        nodes = self.start(*(f"node{number}" for number in range(1, count + 1)))
        for node in nodes[1:]:
            answer = nodes[0].join(node)
            assert answer.status == 200, answer
        self.wait_level()
        return nodes

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.is_running()]

    def leader(self, among: Iterable[Node] | None = None, timeout_s: float = 15.0) -> Node:
        """The leader of the highest term, once the asked nodes have one."""

        def find() -> Node | None:
            found = []
            for node in self.running() if among is None else among:
                try:
                    stats = node.stats()
                except NoAnswer:
                    continue
                if str(stats["state"]).lower() == "leader":
                    found.append((int(stats["term"]), node.node_id, node))
            return max(found)[2] if found else None

        leader = eventually(find, "there is a leader", timeout_s)
        assert leader is not None
        return leader

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.running() if node is not leader]

    def wait_level(self, *nodes: Node, timeout_s: float = 20.0) -> None:
        """Until the nodes (default: all that run) are ready and have applied what the leader has committed by now."""
        target = int(self.leader(nodes or None).stats()["commit_index"])
        for node in nodes or self.running():
            eventually(lambda node=node: node.applied_index() >= target, f"{node.node_id} is level", timeout_s)  # type: ignore[misc]
            node.wait_ready()

    def logs(self) -> str:
        return "\n\n".join(f"---- {node.node_id}\n{node.log()}" for node in self.nodes.values())

    def end(self) -> list[str]:
        """Kill whatever runs. What was wrong: nodes that had ended by themselves, and bugs seen in the logs."""
        wrong = []
        for node in self.nodes.values():
            if node.is_expected_to_run and not node.is_running():
                wrong.append(f"{node.node_id} ended by itself:\n{node.log()}")
            node.kill()
            text = node.log_path.read_text(errors="replace") if node.log_path.exists() else ""
            wrong += [f"{node.node_id}'s log has {bug!r}:\n{node.log()}" for bug in _NEVER_IN_A_LOG if bug in text]
        return wrong
