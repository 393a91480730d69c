"""One soak run, from the first node to the verdict. `run` is all that a test or the command needs."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from tests.soak import plan
from tests.soak.clients import Client, Record
from tests.soak.cluster import SoakCluster, Watch
from tests.soak.members import Members
from tests.soak.namespaces import NamespaceNetwork
from tests.soak.nemesis import FaultLog, Scene, Track
from tests.soak.processes import Processes
from tests.soak.proxy import ProxyNetwork
from tests.soak.roads import Network
from tests.soak.verdict import differences, disk_differences, judge, lacking, read_everything
from tests.soak.weather import Weather

CLIENT_COUNT = 12
LOOK_INTERVAL_S = 1.0
PROGRESS_INTERVAL_S = 5.0
FOUND, UNKNOWN, REFUSED = "reads that found a value", "writes with an unknown outcome", "writes refused"


@dataclasses.dataclass(frozen=True)
class Options:
    """`seconds` is how long faults are made, or up to a third longer while too little has happened; forming the cluster
    and judging it take some ten more.

    `with_namespaces` asks for `namespaces.NamespaceNetwork` instead of the proxy.
    """

    seed: int
    seconds: float
    node_count: int
    directory: Path
    with_namespaces: bool = False

    @property
    def command(self) -> str:
        """Makes the same plan again; what it meets is another matter."""
        namespaces = " NAMESPACES=1" if self.with_namespaces else ""
        return f"make soak SEED={self.seed} SECONDS={self.seconds:g} NODES={self.node_count}{namespaces}"


@dataclasses.dataclass
class Report:
    """`problems` is empty when all is well."""

    figures: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


class Run:
    """Its directory keeps all that is left of it: data, the nodes' logs, nemesis.log; after a failure history.txt."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._started_s = time.monotonic()
        self.report = Report()
        self._options = options
        self._say = say
        self._network: Network = NamespaceNetwork() if options.with_namespaces else ProxyNetwork()
        self._cluster = SoakCluster(options.directory, self._network, **plan.settings(options.seed))
        self._log = FaultLog(options.directory / "nemesis.log", self.now_s)
        self._record = Record()
        """Of all clients, once they have ended."""

    def now_s(self) -> float:
        """The one clock of all clients and of the nemesis."""
        return time.monotonic() - self._started_s

    def carry_out(self) -> Report:
        """Nothing runs any more when it returns or raises."""
        problems = self.report.problems
        try:
            self._cluster.form_to_stay(self._options.node_count)
            with self._watching() as watch:
                self._disturb(watch)
            problems += watch.problems
            self._record.merge(read_everything(self._cluster, self.now_s))
            problems += differences(self._cluster, self._record.refused)
            problems += disk_differences(self._cluster)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the evidence is wanted too
            problems.append("the run ended early:\n" + "".join(traceback.format_exception(error)))
        finally:
            self.report.figures = self._figures([self._record])
            problems += self._cluster.end()
            self._network.close()
        problems += [f"the network itself failed: {error!r}" for error in self._network.failures]
        self._say(f"checking {len(self._record.operations)} operations")
        problems += self._record.problems + judge(self._record)
        problems += lacking(self.report.figures, self._options.seconds)
        self._save()
        return self.report

    @contextmanager
    def _watching(self) -> Iterator[Watch]:
        watch = Watch(self._cluster)
        try:
            yield watch
        finally:
            watch.stop()

    def _disturb(self, watch: Watch) -> None:
        """Clients and nemesis at once; then peace, in which the clients go on until every node is back."""
        faults_end, clients_end = threading.Event(), threading.Event()
        scene = Scene(self._cluster, watch, faults_end)
        members = Members(scene)
        weather = Weather(self._network, list(self._cluster.nodes), watch, faults_end)
        seed, moves = self._options.seed, {**Processes(scene).moves, **members.moves}
        tracks = (
            Track(plan.process_steps(seed), moves, self._log),
            Track(plan.network_steps(seed), weather.moves, self._log),
        )
        clients = [Client(f"c{n}", self._cluster.all, self.now_s, seed) for n in range(CLIENT_COUNT)]
        try:
            with ThreadPoolExecutor(len(clients) + len(tracks)) as pool:
                working = [pool.submit(client.run, clients_end) for client in clients]
                disturbing = [pool.submit(track.run, faults_end) for track in tracks]
                try:
                    self._wait(working + disturbing, clients, watch)
                    faults_end.set()
                    for future in disturbing:
                        future.result()
                    self._network.heal()
                    members.make_whole()
                finally:
                    faults_end.set()
                    clients_end.set()
                for future in working:
                    future.result()
        finally:
            for client in clients:
                self._record.merge(client.record)

    def _wait(self, futures: list[Future[None]], clients: list[Client], watch: Watch) -> None:
        """Until the time is over, or something has gone wrong already."""
        seconds, started_s, said_s = self._options.seconds, self.now_s(), self.now_s()
        while not wait(futures, LOOK_INTERVAL_S, FIRST_EXCEPTION).done and not watch.problems:
            figures, lasted_s = self._figures([client.record for client in clients]), self.now_s() - started_s
            if lasted_s > seconds and (lasted_s > seconds * 4 / 3 or not lacking(figures, seconds)):
                return
            if self.now_s() - said_s > PROGRESS_INTERVAL_S:
                said_s = self.now_s()
                self._say(
                    f"{said_s:4.0f} s: {figures['operations']} operations, {figures[FOUND]} values read, "
                    f"{figures[UNKNOWN]} unknown, {figures[REFUSED]} refused; {self._log.happened.total()} faults; "
                    f"{watch.leader} leads term {watch.term}"
                )

    def _figures(self, records: Sequence[Record]) -> dict[str, int]:
        counts, nodes = self._network.counts, self._cluster.all
        return {
            "operations": sum(len(record.operations) for record in records),
            FOUND: sum(record.found_count for record in records),
            "reads without an answer": sum(record.unanswered_read_count for record in records),
            UNKNOWN: sum(record.open_count for record in records),
            REFUSED: sum(record.refused_count for record in records),
            "writes never sent": sum(record.unsent_count for record in records),
            "answers with a revision": sum(len(record.sights) for record in records),
            "leaders": sum(node.times_leader() for node in nodes),
            "snapshots installed": sum(node.snapshots_installed() for node in nodes),
            "connections and pieces that a partition met": counts["held"] + counts["refused"],
            **{
                kind.value: self._log.happened[kind]
                for kind in plan.Kind
                if kind is not plan.Kind.DELAY or self._network.can_delay
            },
            **{f"{kind.value}, skipped": count for kind, count in self._log.skipped.items()},
        }

    def _save(self) -> None:
        if not self.report.problems:
            return
        operations = sorted(self._record.operations, key=lambda operation: operation.call_s)
        (self._options.directory / "history.txt").write_text("".join(f"{operation}\n" for operation in operations))
        self.report.problems.append(
            f"history.txt, nemesis.log and the nodes' logs are in {self._options.directory}; "
            f"the same plan again: {self._options.command}"
        )


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Raises nothing for what goes wrong in the run: `problems` says it all."""
    options.directory.mkdir(parents=True, exist_ok=True)
    return Run(options, say).carry_out()
