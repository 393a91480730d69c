"""A cluster whose nodes lose power, what its clients know of it, and the comparison of the two."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from raftkv.errors import StorageError
from raftkv.storage import StoppedDirectory
from tests.e2e.cluster import Cluster
from tests.e2e.curl import Answer, Connection, curl
from tests.e2e.node import PROGRAM, Node
from tests.e2e.waiting import eventually, eventually_answers
from tests.power.figures import Figures
from tests.power.ledger import Key, Ledger
from tests.power.load import value_in

TIMEOUT_S = 90.0


class PoweredNode(Node):
    """A node with more in its environment."""

    variables: Mapping[str, str] = {}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.variables}


class Store(Cluster):
    """`losing` are those of its nodes that are on the disk whose power fails."""

    def __init__(
        self,
        directory: Path,
        node_ids: Sequence[str],
        on_disk: Mapping[str, Path],
        variables: Mapping[str, Mapping[str, str]],
        **settings: object,
    ) -> None:
        """By name of node: `on_disk` has data directories that are not in `directory`, `variables` what is added to the
        environment. Nothing is started.
        """
        super().__init__(directory, **settings)
        directory.mkdir(parents=True)
        for node_id in node_ids:
            node = PoweredNode(node_id, directory, **settings)
            node.variables = variables.get(node_id, {})
            node.data_dir = on_disk.get(node_id, node.data_dir)
            self.nodes[node_id] = node
        self.losing = [self.nodes[node_id] for node_id in on_disk]
        self.ledger = Ledger(node_ids[0], client_count=4 if len(node_ids) == 1 else 8)

    def start_missing(self) -> None:
        for node in self.nodes.values():
            if not node.is_running():
                node.start()

    def wait_all_ready(self) -> None:
        """Raises RuntimeError, with the log, when one of them has ended instead."""
        for node in self.nodes.values():
            node.wait_ready(TIMEOUT_S)

    def join_all(self) -> None:
        """Make one cluster of nodes that were just started for the first time."""
        self.start_missing()
        self.wait_all_ready()
        first, *others = self.nodes.values()
        for node in others:
            answer = first.join(node)
            assert answer.status == 200, answer
        self.wait_level(timeout_s=TIMEOUT_S)

    def look_at_logs(self, figures: Figures) -> None:
        """What the cut has left, before a start mends it."""
        for node in self.losing:
            if (node.data_dir / "identity.json").exists():
                try:
                    with StoppedDirectory.open(node.data_dir) as stopped:
                        figures.torn_count += stopped.log().torn_bytes > 0
                except StorageError as error:
                    figures.problems.append(f"the log of {node.node_id} is damaged: {error}")

    def let_lead(self, node: Node) -> None:
        def hand_over() -> bool:
            leader = self.leader(timeout_s=TIMEOUT_S)
            if leader is not node:
                curl("POST", leader.address, "/raft/transfer", {"node_id": node.node_id})
            return leader is node

        eventually(hand_over, f"{node.node_id} leads", TIMEOUT_S)

    def check(self, figures: Figures, *, only_changed: bool) -> None:
        """Compare what all nodes hold with what the clients know; nobody may write meanwhile."""
        if len(self.nodes) > 1:
            # What was on its way when the clients stopped comes before this, or never.
            any_node = next(iter(self.nodes.values()))
            eventually_answers(lambda: any_node.store("barrier", 1), 200, "a write is accepted", TIMEOUT_S)
            self.wait_level(timeout_s=TIMEOUT_S)
        keys = self.ledger.keys(only_changed=only_changed)
        found = {node.node_id: self._read(node, keys, figures) for node in self.nodes.values()}
        first_id, *other_ids = found
        for at, key in enumerate(keys):
            value = found[first_id][at]
            for node_id in other_ids:
                if found[node_id][at] != value:
                    figures.problems.append(f"{first_id} and {node_id} differ at {key.name}")
            problem = key.look(value)
            if problem:
                figures.problems.append(problem)
            elif key.is_acknowledged:
                figures.checked_count += 1
            key.is_changed = key.is_acknowledged = False
        figures.compared_count += len(keys) * len(found)

    def _read(self, node: Node, keys: Sequence[Key], figures: Figures) -> list[str | None]:
        with node.connect() as connection:
            revision = _revision(connection)
            if revision < self.ledger.highest_revision:
                figures.problems.append(
                    f"{node.node_id} is at revision {revision}, {self.ledger.highest_revision} was acknowledged"
                )
            return [_value(connection, key) for key in keys]

    def stop_and_inspect(self, figures: Figures) -> None:
        """Stop every node in good order, the leader last so that nothing more is decided; then read their files."""
        leader = self.leader()
        for node in [*(node for node in self.nodes.values() if node is not leader), leader]:
            node.stop()
        digests = defaultdict(set)
        for node in self.nodes.values():
            command = [str(PROGRAM), "inspect", "--json", str(node.data_dir)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                figures.problems.append(f"inspect of {node.node_id} ends with {done.returncode}: {done.stderr}")
                continue
            state = json.loads(done.stdout)["state"]
            digests[state["applied_up_to"]].add(state["digest"])
        figures.problems += [f"digests differ at {place}" for place, found in digests.items() if len(found) > 1]


def _value(connection: Connection, key: Key) -> str | None:
    """What the node itself has, confirmed: one that was starved of the processor first asks the leader again."""

    def ask() -> Answer:
        answer = connection.request("GET", f"/store/{key.name}")
        assert answer.status in {200, 404}, answer
        assert not answer.is_marked_stale, answer
        return answer

    return value_in(eventually(ask, f"{key.name} is read", TIMEOUT_S))


def _revision(connection: Connection) -> int:
    return int(connection.request("GET", "/raft/stats").headers["x-raftkv-revision"])
