"""Writes that clients give to a follower: carried to the leader in batches and answered here.

A forwarded batch is never sent twice by itself: if its answer is lost nobody knows whether it took effect,
and the client is told so. It is surely lost only when it never left this process.

Before a forwarded write is answered, this node waits (within the request's time) until it has applied the
write itself: a client that writes and then reads through the same follower sees its own write, which a
plain local read would miss for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from raftkv.errors import (
    DiskFull,
    InvalidInput,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    PeerProtocolError,
    RaftkvError,
    ShuttingDown,
    Unavailable,
)
from raftkv.runtime import wire
from raftkv.runtime.clients.codec import CommandCodec
from raftkv.types import NOBODY, MemberId

Done = Callable[[Any], None]

BATCH_MAX_BYTES = 1 << 19
"""Of one forwarded batch; a single larger command still travels alone."""

BATCH_MAX_COUNT = 1024
"""Commands in one forwarded batch. A quarter of a million tiny ones fit into the bytes and would hold up the loop."""


class _Batch:
    __slots__ = ("bytes_count", "commands", "deadline_s", "dones", "leader", "results", "sizes")

    def __init__(self, deadline_s: float) -> None:
        self.commands: list[Any] = []
        self.dones: list[Done] = []
        self.sizes: list[int] = []
        self.bytes_count = 0
        self.deadline_s = deadline_s
        self.leader: MemberId = NOBODY
        self.results: list[Any] = []


class _Answered(NamedTuple):
    """The leader's answer has come; this node waits until it has applied `applied_index` itself."""

    applied_index: int
    batch: _Batch


class Forwarding:
    """A few batches to the leader are under way at a time, and behind them the next one gathers."""

    def __init__(
        self,
        codec: CommandCodec,
        send: Callable[[MemberId, bytes], bool],
        wake: Callable[[], None],
        now: Callable[[], float],
        *,
        first_request_id: int,
        timeout_s: float,
        pending_max_bytes: int,
        window_count: int = 4,
        batch_max_count: int = BATCH_MAX_COUNT,
        batch_max_bytes: int = BATCH_MAX_BYTES,
    ) -> None:
        self._codec = codec
        self._send = send
        self._wake = wake
        self._now = now
        self._next_request_id = first_request_id
        self._timeout_s = timeout_s
        self._pending_max_bytes = pending_max_bytes
        self._window_count = window_count
        self._batch_max_count = batch_max_count
        self._batch_max_bytes = batch_max_bytes
        self._waiting: list[_Batch] = []
        self._sent: dict[int, _Batch] = {}
        self._answered: list[_Answered] = []
        self._bytes_count = 0
        self._is_closed = False

    @property
    def has_pending(self) -> bool:
        return bool(self._waiting or self._sent or self._answered)

    @property
    def pending_count(self) -> int:
        batches = (*self._waiting, *self._sent.values(), *(answered.batch for answered in self._answered))
        return sum(len(batch.dones) for batch in batches)

    def submit(self, command: Any, bytes_count: int, done: Done) -> None:
        """Queue one command for the leader; `done` is called once, perhaps before this returns."""
        if self._is_closed:
            done(ShuttingDown("the node is stopping; ask another member"))
            return
        if self._bytes_count and self._bytes_count + bytes_count > self._pending_max_bytes:
            done(Overloaded(f"{self._bytes_count} bytes of writes are waiting; slow down and try again"))
            return
        waiting = self._waiting
        if (
            not waiting
            or len(waiting[-1].dones) >= self._batch_max_count
            or waiting[-1].bytes_count + bytes_count > self._batch_max_bytes
        ):
            waiting.append(_Batch(self._now() + self._timeout_s))
            self._wake()
        batch = waiting[-1]
        batch.commands.append(command)
        batch.dones.append(done)
        batch.sizes.append(bytes_count)
        batch.bytes_count += bytes_count
        self._bytes_count += bytes_count

    def flush(self, leader: MemberId) -> None:
        """Send what waits to `leader`, as far as the window allows."""
        while self._waiting and len(self._sent) < self._window_count:
            batch = self._waiting.pop(0)
            request_id = self._next_request_id
            self._next_request_id += 1
            batch.leader = leader
            frame = wire.encode(wire.Forward(request_id, self._codec.encode_batch(batch.commands)))
            if leader == NOBODY or not self._send(leader, frame):
                self._finish(
                    batch, NoLeader("no leader can be reached from this node; try again or ask another member")
                )
                continue
            self._sent[request_id] = batch

    def take_back(self) -> list[tuple[Any, int, Done]]:
        """What was not sent yet, as (command, bytes, done): this node has come to lead and takes it itself."""
        waiting, self._waiting = self._waiting, []
        self._bytes_count -= sum(batch.bytes_count for batch in waiting)
        return [work for batch in waiting for work in zip(batch.commands, batch.sizes, batch.dones, strict=True)]

    def handle_reply(self, sender: MemberId, reply: wire.ForwardReply, applied_index: int) -> None:
        """Raises `PeerProtocolError` for an answer that does not fit; the outcome is unknown then."""
        batch = self._sent.get(reply.request_id)
        if batch is None:
            return  # it was given up on before
        if batch.leader != sender:
            raise PeerProtocolError(f"member {sender} answers what was forwarded to {batch.leader}")
        del self._sent[reply.request_id]
        if self._waiting:
            self._wake()
        if reply.failure is not None:
            self._finish(batch, _error_of(reply.failure))
            return
        try:
            outcomes = self._codec.decode_results(reply.results)
            if len(outcomes) != len(batch.dones):
                raise PeerProtocolError(f"{len(outcomes)} results for {len(batch.dones)} forwarded commands")
        except PeerProtocolError:
            self._finish(batch, _unknown("the leader's answer does not fit the request"))
            raise
        batch.results = [_error_of(each) if type(each) is wire.Failure else each for each in outcomes]
        self._answered.append(_Answered(reply.index, batch))
        self.applied(applied_index)

    def applied(self, applied_index: int) -> None:
        """Answer what this node has applied by now."""
        if not self._answered:
            return
        ready = [answered for answered in self._answered if answered.applied_index <= applied_index]
        self._answered = [answered for answered in self._answered if answered.applied_index > applied_index]
        for answered in ready:
            self._answer(answered.batch)

    def unreachable(self, member_id: MemberId) -> None:
        """The connection to `member_id` is gone and so, perhaps, are answers."""
        for request_id in [i for i, batch in self._sent.items() if batch.leader == member_id]:
            self._finish(self._sent.pop(request_id), _unknown("the connection to the leader was lost"))

    def leader_changed(self, leader: MemberId) -> None:
        """What the former leader was sent is undecided: it may hang, and the deadline would tell no more."""
        for request_id in [i for i, batch in self._sent.items() if batch.leader != leader]:
            self._finish(self._sent.pop(request_id), _unknown("another leader was elected before this one answered"))

    def expire(self) -> None:
        """Called every tick. What the leader has answered is told even if this node lags behind it."""
        now = self._now()
        for answered in [a for a in self._answered if a.batch.deadline_s <= now]:
            self._answered.remove(answered)
            self._answer(answered.batch)
        for request_id in [i for i, batch in self._sent.items() if batch.deadline_s <= now]:
            self._finish(self._sent.pop(request_id), _unknown("the leader did not answer in time"))
        while self._waiting and self._waiting[0].deadline_s <= now:
            self._finish(self._waiting.pop(0), Overloaded("the write could not be forwarded in time; try again"))

    def close(self) -> None:
        self._is_closed = True
        for batch in self._waiting:
            self._finish(batch, ShuttingDown("the node is stopping; ask another member"))
        for batch in self._sent.values():
            self._finish(batch, _unknown("this node stopped before the leader answered"))
        for answered in self._answered:
            self._answer(answered.batch)
        self._waiting, self._sent, self._answered = [], {}, []

    def _answer(self, batch: _Batch) -> None:
        self._bytes_count -= batch.bytes_count
        for done, result in zip(batch.dones, batch.results, strict=True):
            done(result)

    def _finish(self, batch: _Batch, error: RaftkvError) -> None:
        self._bytes_count -= batch.bytes_count
        for done in batch.dones:
            done(error)


_REFUSALS: dict[str, type[RaftkvError]] = {
    kind.__name__: kind for kind in (DiskFull, InvalidInput, NoLeader, Overloaded, ShuttingDown)
}


def _error_of(failure: wire.Failure) -> RaftkvError:
    if failure.is_unknown:
        return OutcomeUnknown(failure.message)
    if failure.code == NotLeader.__name__:
        return NoLeader("leadership is changing; try again")
    return _REFUSALS.get(failure.code, Unavailable)(failure.message)


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why}; the write may still take effect: read the key before writing again")
