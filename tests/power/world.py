"""Nodes on a disk whose power fails again and again, and what must hold each time it is back.

One round: start, wait until all is ready, **check**, load, cut, kill, restore. In some rounds the power fails while the
nodes start, or while they stop in good order. Every choice comes from the dice, but not the moment at which a cut meets
the nodes: that is the machine's, so a seed does not repeat a run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.power.disk import STRICT, PowerDisk
from tests.power.figures import LEAST_CHECKED_PER_CUT, Figures, Moment
from tests.power.load import Load
from tests.power.store import Store
from tests.power.writeback import Writeback

KINDS = {
    "alone": "two nodes, each a cluster of its own, on one disk: the cheapest, so most cuts are of this kind",
    "together": "a cluster of three on one disk: no node has what another one could lack",
    "member": "a cluster of three, one of them on the disk: the others go on, and send it what it missed",
}
_MOMENTS = {Moment.LOAD: 0.75, Moment.START: 0.15, Moment.STOP: 0.10}
_CHECK_ALL_ROUNDS = 10
"""Every so many rounds all keys are compared; otherwise those that were used since."""
_WRITES = (LEAST_CHECKED_PER_CUT + 10, 300)
"""At least and at most so many are acknowledged between two cuts."""
_NODE_IDS = ("node1", "node2", "node3")


class World:
    """As a context it makes its disk, and leaves neither processes nor mounts."""

    def __init__(
        self,
        directory: Path,
        kind: str,
        dice: random.Random,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        """`variables` are added to the environment of every node; `settings` to small ones drawn by the dice."""
        self.kind = kind
        self.dice = dice
        self.figures = Figures()
        options = dice.choice(("data=ordered", "data=writeback", "data=ordered,nodelalloc"))
        by_pages = dice.random() < 0.7
        self.disk = PowerDisk(directory / "power", options=f"{STRICT},{options}", by_pages=by_pages)
        settings = {**_small_settings(dice), **settings}
        losing = {"alone": _NODE_IDS[:2], "together": _NODE_IDS, "member": _NODE_IDS[1:2]}[kind]
        on_disk = {node_id: self.disk.path / node_id for node_id in losing}
        variables = variables or {}
        of_nodes = dict.fromkeys(_NODE_IDS, variables)
        if kind == "alone":
            self.stores = [
                Store(directory / node_id, [node_id], {node_id: on_disk[node_id]}, of_nodes, **settings)
                for node_id in losing
            ]
        else:
            self.stores = [Store(directory / "cluster", _NODE_IDS, on_disk, of_nodes, **settings)]
        self.description = f"{kind}, {options}, by_pages={by_pages}, {settings}, {dict(variables)}"
        self._round_count = 0
        self._start_s = 1.0
        """How long the nodes took to be ready, the last time."""

    def __enter__(self) -> Self:
        self.disk.make()
        try:
            if self.kind != "alone":
                self.stores[0].join_all()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        try:
            for store in self.stores:
                self.figures.problems += store.end()
        finally:
            self.disk.remove()
        self.figures.acknowledged_count = sum(store.ledger.acknowledged_count for store in self.stores)

    def round(self, moment: Moment | None = None) -> None:
        """One cut, of what the rounds before have left. Look at `figures.problems` afterwards."""
        moment = moment or self.dice.choices(list(_MOMENTS), list(_MOMENTS.values()))[0]
        self.start()
        if moment is Moment.START:
            time.sleep(self.dice.random() * 1.2 * self._start_s)  # a moment that is nobody's event is what is wanted
            self.cut_and_restore(moment)
            return
        self.check()
        if self.figures.problems:
            return
        if self.kind == "member" and self.dice.random() < 0.5:
            self.stores[0].let_lead(self.stores[0].losing[0])
        with self.load() as load:
            with Writeback(self.disk.path, self.dice):
                load.wait_acknowledged(self.dice.randint(*_WRITES))
                self._pass_time(0.02)
                if moment is Moment.STOP:
                    self._terminate()
                    self._pass_time(0.3)
                self.cut(moment)
                self._pass_time(0.05)  # what clients are told now counts as well
                self._kill()
            if self.kind == "member":
                load.wait_acknowledged(self.dice.randint(*_WRITES))
            self._restore()
            if self.kind == "member":
                self.start()  # it catches up under load

    def start(self) -> None:
        for store in self.stores:
            store.start_missing()

    def check(self, *, everything: bool = False) -> None:
        """Wait until all nodes are ready, and compare."""
        started_s = time.monotonic()
        try:
            for store in self.stores:
                store.wait_all_ready()
        except (RuntimeError, AssertionError) as error:
            self.figures.problems.append(f"a node does not come back: {error}")
            return
        self._start_s = min(time.monotonic() - started_s, 10.0)
        everything = everything or self._round_count % _CHECK_ALL_ROUNDS == _CHECK_ALL_ROUNDS - 1
        self._round_count += 1
        for store in self.stores:
            store.check(self.figures, only_changed=not everything)

    def load(self) -> Load:
        return Load(
            [(list(store.nodes.values()), store.ledger) for store in self.stores], self.dice, self.figures.problems
        )

    def cut(self, moment: Moment) -> None:
        self.disk.cut(journal_first=self.dice.random() < 0.25)
        self.figures.cuts[self.kind, moment] += 1
        self.figures.directory_count += sum(len(store.losing) for store in self.stores)

    def cut_and_restore(self, moment: Moment) -> None:
        """A cut after which nobody goes on."""
        self.cut(moment)
        self._kill()
        self._restore()

    def finish(self) -> None:
        """The last check, of everything; of the files as well, when all nodes have stopped in good order."""
        self.start()
        self.check(everything=True)
        if not self.figures.problems:
            for store in self.stores:
                store.stop_and_inspect(self.figures)

    def report(self) -> str:
        """For a person: what was wrong, in what world, and what its nodes said."""
        logs = "\n\n".join(store.logs() for store in self.stores)
        return "\n".join([self.description, str(self.figures), *self.figures.problems[:20], logs])

    def _terminate(self) -> None:
        for store in self.stores:
            for node in store.losing:
                node.terminate()

    def _restore(self) -> None:
        self.disk.restore()
        for store in self.stores:
            store.look_at_logs(self.figures)

    def _kill(self) -> None:
        for store in self.stores:
            for node in store.losing:
                node.kill()

    def _pass_time(self, most_s: float) -> None:
        time.sleep(self.dice.random() * most_s)


def _small_settings(dice: random.Random) -> dict[str, object]:
    """New segments, flushes, cuts of the log and compactions all the time."""
    kib = 1 << 10
    return {
        "segment_size_bytes": dice.choice((64, 256, 1024)) * kib,
        "flush_interval_bytes": dice.choice((64, 256)) * kib,
        "log_retention_bytes": dice.choice((0, 64, 256)) * kib,
        "history_retention_count": dice.choice((50, 1000)),
        "write_buffer_bytes": 1 << 20,
        "disk_reserve_bytes": 0,
    }
