"""Group commit: everything that arrives while the log or the network is busy becomes the next batch.

One batch is one log entry, one disk sync, one message a follower, one write to the state. The window below
is what makes batches: with few batches in flight the rest has to wait, and what waits together travels
together, so that the cost a command falls as the load grows. A batch that finds nothing in flight
leaves at once, so a lone client waits for nobody.

A command ends in exactly one of three ways, and `done` is told once: its result; a `Rejected`, when the
command surely never takes effect (it was never proposed, or another entry was committed in its
place); or `OutcomeUnknown`, when nobody can say in time (Thesis §6.3 is why that must not be called a failure).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raftkv.errors import NoLeader, OutcomeUnknown, Overloaded, RaftkvError, ShuttingDown
from raftkv.types import Entry

Done = Callable[[Any], None]


class Proposer(Protocol):
    """The part of the core that is needed here."""

    def propose(self, data: bytes) -> tuple[int, int]: ...


class _Batch:
    __slots__ = ("bytes_count", "commands", "deadline_s", "dones", "term")

    def __init__(self, commands: list[Any], dones: list[Done], bytes_count: int, deadline_s: float) -> None:
        self.commands = commands
        self.dones = dones
        self.bytes_count = bytes_count
        self.deadline_s = deadline_s
        self.term = 0


class Proposals:
    """Commands on their way into the log of this leader.

    window_count: batches proposed and not yet applied before further commands wait.
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
        window_count: int = 2,
        batch_max_count: int = 1024,
        batch_max_bytes: int = 1 << 19,
    ) -> None:
        self._proposer = proposer
        self._encode_batch = encode_batch
        self._wake = wake
        self._now = now
        self._timeout_s = timeout_s
        self._pending_max_bytes = pending_max_bytes
        self._window_count = window_count
        self._batch_max_count = batch_max_count
        self._batch_max_bytes = batch_max_bytes
        self._waiting: deque[_Batch] = deque()
        self._inflight: dict[int, _Batch] = {}
        self._bytes_count = 0
        self._is_closed = False

    @property
    def pending_bytes(self) -> int:
        return self._bytes_count

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def pending_count(self) -> int:
        """Commands that have no answer yet."""
        return sum(len(batch.dones) for batch in (*self._waiting, *self._inflight.values()))

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
            if (
                len(batch.dones) < self._batch_max_count
                and batch.bytes_count + bytes_count <= self._batch_max_bytes
                and batch.dones[0] is not _WHOLE_BATCH  # a forwarded batch takes nobody else in: its answer is one
            ):
                batch.commands.append(command)
                batch.dones.append(done)
                batch.bytes_count += bytes_count
                return
        waiting.append(_Batch([command], [done], bytes_count, self._now() + self._timeout_s))
        self._wake()

    def submit_batch(self, commands: list[Any], bytes_count: int, done: Done) -> None:
        """Queue commands that came together; `done` gets `(index, results)` or one error for all of them.

        They become a batch of their own, so one log index holds them all.
        """
        if self._is_closed or (self._bytes_count and self._bytes_count + bytes_count > self._pending_max_bytes):
            done(Overloaded("too many bytes of writes are waiting; slow down and try again"))
            return
        self._bytes_count += bytes_count
        batch = _Batch(commands, [_WHOLE_BATCH, done], bytes_count, self._now() + self._timeout_s)
        self._waiting.append(batch)
        self._wake()

    def flush(self) -> bool:
        """Propose what waits, as far as the window allows. True when the core was given something."""
        has_proposed = False
        while self._waiting and len(self._inflight) < self._window_count:
            batch = self._waiting.popleft()
            try:
                index, batch.term = self._proposer.propose(self._encode_batch(batch.commands))
            except RaftkvError as error:
                self._finish(batch, error)
                continue
            self._inflight[index] = batch
            has_proposed = True
        return has_proposed

    def applied(self, entry: Entry, results: Sequence[Any]) -> None:
        """`entry` took effect with these results; answers whoever waited at its index."""
        batch = self._inflight.pop(entry.index, None)
        if batch is None:
            return
        if batch.term != entry.term:
            # Another leader's entry was committed at this index, so ours never will be (Raft §5.3).
            self._finish(batch, NoLeader("leadership changed and the write was discarded; it is safe to try again"))
            return
        self._bytes_count -= batch.bytes_count
        dones = batch.dones
        if dones[0] is _WHOLE_BATCH:
            dones[1]((entry.index, results))
            return
        for done, result in zip(dones, results, strict=True):
            done(result)

    def leadership_lost(self) -> None:
        """What was never proposed is refused; what was proposed waits for its index or its deadline."""
        waiting, self._waiting = self._waiting, deque()
        for batch in waiting:
            self._finish(batch, NoLeader("leadership was lost before the write was proposed; try again"))

    def expire(self) -> None:
        """Give up on what waited longer than the time limit."""
        now = self._now()
        while self._waiting and self._waiting[0].deadline_s <= now:
            self._finish(self._waiting.popleft(), Overloaded("the write could not be proposed in time; try again"))
        for index in [i for i, batch in self._inflight.items() if batch.deadline_s <= now]:
            self._finish(self._inflight.pop(index), _unknown("no majority answered in time"))

    def close(self) -> None:
        """Refuse new work and end all that waits."""
        self._is_closed = True
        self.leadership_lost()
        inflight, self._inflight = self._inflight, {}
        for batch in inflight.values():
            self._finish(batch, _unknown("the node stopped"))

    def _finish(self, batch: _Batch, error: RaftkvError) -> None:
        self._bytes_count -= batch.bytes_count
        for done in batch.dones:
            done(error)


def _whole_batch(_: Any) -> None:
    """Marks a batch whose one `done` takes all results; never has anything to say itself."""


_WHOLE_BATCH: Done = _whole_batch


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why}; the write may still take effect: read the key before writing again")
