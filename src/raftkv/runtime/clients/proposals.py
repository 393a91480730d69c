"""Group commit: everything that arrives while the log or the network is busy becomes the next batch.

One batch is one log entry, one disk sync, one message a follower, one write to the state. The window below
is what makes batches: with few batches in flight the rest has to wait, and what waits together travels
together, so that the cost a command falls as the load grows (`gathering` makes the batches whole).

A command ends in exactly one of three ways, and `done` is told once: its result; a `Rejected`, when the
command surely never takes effect (it was never proposed, or another entry was committed in its
place); or `OutcomeUnknown`, when nobody can say in time (Thesis §6.3 is why that must not be called a failure).

A batch whose leader was voted out is *adrift*: what becomes of it is decided only when an entry at its index is
committed. That this node has lost the entry and leads again decides nothing: another member may still hold it, win the
next election, and commit it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raftkv.errors import NoLeader, OutcomeUnknown, Overloaded, RaftkvError, Rejected, ShuttingDown, require
from raftkv.runtime.clients.gathering import Gathering
from raftkv.types import Entry, EntryKind

Done = Callable[[Any], None]

WINDOW_STEP_S = 0.01
"""One more batch may be under way for each such part of a batch's latency (docs/design/performance.md)."""


class Proposer(Protocol):
    """The part of the core that is needed here."""

    def propose(self, data: bytes) -> tuple[int, int]: ...


class _Batch:
    __slots__ = ("bytes_count", "commands", "deadline_s", "dones", "index", "proposed_s", "term")

    def __init__(self, commands: list[Any], dones: list[Done], bytes_count: int, deadline_s: float) -> None:
        self.commands = commands
        self.dones = dones
        self.bytes_count = bytes_count
        self.deadline_s = deadline_s
        self.proposed_s = 0.0
        self.index = 0
        self.term = 0


class Proposals:
    """Commands on their way into the log of this leader.

    window_max_count: the most batches proposed and not yet applied; below it the window follows the latency, see
        `_note_latency`.
    batch_max_count, batch_max_bytes: size of one batch; a single larger command still travels alone.
    pending_max_bytes: commands waiting and in flight, above which `submit` refuses with `Overloaded`.
    """

    def __init__(
        self,
        proposer: Proposer,
        encode_batch: Callable[[list[Any]], bytes],
        wake: Callable[[], None],
        now: Callable[[], float],
        *,
        timeout_s: float,
        pending_max_bytes: int,
        window_max_count: int = 8,
        batch_max_count: int = 1024,
        batch_max_bytes: int = 1 << 19,
    ) -> None:
        self._proposer = proposer
        self._encode_batch = encode_batch
        self._wake = wake
        self._now = now
        self._timeout_s = timeout_s
        self._pending_max_bytes = pending_max_bytes
        self._window_max_count = window_max_count
        self._window_count = 1
        self._gathering = Gathering()
        self._latency_s = 0.0
        self.applied_index = 0
        """Of the entry whose commands are being answered, while `done`s are called."""
        self._batch_max_count = batch_max_count
        self._batch_max_bytes = batch_max_bytes
        self._waiting: deque[_Batch] = deque()
        self._lone_entry: Entry | None = None
        self._inflight: dict[int, _Batch] = {}
        """By index. Of this leadership only, so that nothing that is adrift takes up the window."""
        self._adrift: list[_Batch] = []
        self._bytes_count = 0
        self._is_closed = False

    @property
    def pending_bytes(self) -> int:
        return self._bytes_count

    @property
    def has_inflight(self) -> bool:
        """Somebody waits for the results of entries to come."""
        return bool(self._inflight or self._adrift)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def pending_count(self) -> int:
        """Commands that have no answer yet."""
        return sum(len(batch.dones) for batch in (*self._waiting, *self._proposed()))

    def submit(self, command: Any, bytes_count: int, done: Done) -> None:
        """Queue one command of about `bytes_count` bytes; `done` is called once, perhaps before this returns."""
        if self._is_closed:
            done(ShuttingDown("the node is stopping; ask another member"))
            return
        if self._bytes_count + bytes_count > self._pending_max_bytes and self._bytes_count:
            done(Overloaded(f"{self._bytes_count} bytes of writes are waiting; slow down and try again"))
            return
        self._bytes_count += bytes_count
        waiting = self._waiting
        if waiting:
            batch = waiting[-1]
            if len(batch.dones) < self._batch_max_count and batch.bytes_count + bytes_count <= self._batch_max_bytes:
                batch.commands.append(command)
                batch.dones.append(done)
                batch.bytes_count += bytes_count
                return
        waiting.append(_Batch([command], [done], bytes_count, self._now() + self._timeout_s))
        self._wake()

    def flush(self) -> bool:
        """Propose what waits, as far as the window allows. True when the core was given something."""
        has_proposed = False
        waiting = self._waiting
        if len(waiting) == 1 and not self._inflight and self._gathering.should_wait(len(waiting[0].dones), self._now()):
            self._wake()
            return False
        while waiting and len(self._inflight) < self._window_count:
            batch = waiting.popleft()
            try:
                data = self._encode_batch(batch.commands)
                batch.index, batch.term = self._proposer.propose(data)
            except Rejected as error:
                self._finish(batch, error)
                continue
            except Exception:
                self._finish(batch, _unknown("the node failed"))
                raise
            batch.proposed_s = self._now()
            require(batch.index not in self._inflight, "index {} was given to two batches", batch.index)
            self._inflight[batch.index] = batch
            is_lone = len(self._inflight) == 1
            self._lone_entry = Entry(batch.index, batch.term, EntryKind.COMMANDS, data) if is_lone else None
            has_proposed = True
        return has_proposed

    def take_lone_entry(self) -> Entry | None:
        """The entry that was just proposed, if no other is under way: given out once."""
        entry, self._lone_entry = self._lone_entry, None
        return entry

    def applied(self, entry: Entry, results: Sequence[Any]) -> None:
        """`entry` took effect with these results; answers whoever waited at its index."""
        batch = self._inflight.pop(entry.index, None)
        if batch is not None:
            self._settle(batch, entry, results)
        if self._adrift:
            overtaken = [batch for batch in self._adrift if batch.index == entry.index]
            self._adrift = [batch for batch in self._adrift if batch.index != entry.index]
            for batch in overtaken:
                self._settle(batch, entry, results)

    def leadership_lost(self) -> None:
        """What was never proposed is refused; what was proposed waits for its index or its deadline."""
        self._adrift += self._inflight.values()
        self._inflight = {}
        self._lone_entry = None
        self._refuse_waiting(NoLeader("leadership was lost before the write was proposed; try again"))

    def expire(self) -> None:
        """Give up on what waited longer than the time limit."""
        now = self._now()
        while self._waiting and self._waiting[0].deadline_s <= now:
            self._finish(self._waiting.popleft(), Overloaded("the write could not be proposed in time; try again"))
        for index in [i for i, batch in self._inflight.items() if batch.deadline_s <= now]:
            self._finish(self._inflight.pop(index), _unknown("no majority answered in time"))
        for batch in [batch for batch in self._adrift if batch.deadline_s <= now]:
            self._adrift.remove(batch)
            self._finish(batch, _unknown("leadership was lost, and nothing was committed in its place in time"))

    def close(self) -> None:
        """Refuse new work and end all that waits."""
        self._is_closed = True
        self._refuse_waiting(ShuttingDown("the node is stopping; ask another member"))
        proposed, self._inflight, self._adrift = self._proposed(), {}, []
        for batch in proposed:
            self._finish(batch, _unknown("the node stopped"))

    def _proposed(self) -> list[_Batch]:
        return [*self._inflight.values(), *self._adrift]

    def _settle(self, batch: _Batch, entry: Entry, results: Sequence[Any]) -> None:
        """`entry` was committed at the index of `batch`."""
        if batch.term != entry.term:
            # Another leader's entry was committed at this index, so ours never will be (Raft §5.3).
            self._finish(batch, _discarded())
            return
        self._bytes_count -= batch.bytes_count
        self.applied_index = entry.index
        self._gathering.expect(len(batch.dones) + sum(len(waiting.dones) for waiting in self._waiting))
        self._note_latency(self._now() - batch.proposed_s)
        for done, result in zip(batch.dones, results, strict=True):
            done(result)

    def _note_latency(self, latency_s: float) -> None:
        """One batch at a time while batches are quick: a second one under way would halve the size of both, and the
        cost of a batch is what limits a small machine. Where network or disk take their time, more are under way.
        """
        self._latency_s += (latency_s - self._latency_s) / 8
        self._window_count = min(self._window_max_count, 1 + int(self._latency_s / WINDOW_STEP_S))

    def _refuse_waiting(self, error: RaftkvError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for batch in waiting:
            self._finish(batch, error)

    def _finish(self, batch: _Batch, error: RaftkvError) -> None:
        self._bytes_count -= batch.bytes_count
        for done in batch.dones:
            done(error)


def _discarded() -> NoLeader:
    return NoLeader("leadership changed and the write was discarded; it is safe to try again")


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why}; the write may still take effect: read the key before writing again")
