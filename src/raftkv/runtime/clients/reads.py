"""Linearizable and lease reads: groups of keys that wait for one confirmation (Thesis §6.4).

Reads that arrive while a confirmation is under way form the next group, so that a round of messages pays
for many reads. A group is answered once the core confirmed it and the state has applied the confirmed
index. A refused group (the leader changed) asks again until its deadline: reads change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.errors import Overloaded, RaftkvError, ReadTimeout, ShuttingDown
from raftkv.raft import ConfirmedRead

Done = Callable[[Any], None]


class _Group:
    __slots__ = ("deadline_s", "is_lease", "is_refused", "read_index", "reads", "request_id")

    def __init__(self, is_lease: bool, deadline_s: float) -> None:
        self.reads: list[Callable[[Any], None]] = []
        self.is_lease = is_lease
        self.deadline_s = deadline_s
        self.request_id = 0
        self.read_index = -1
        self.is_refused = False


class ReadQueue:
    """Reads of this node that wait for the leader's word.

    Each waiting read is one `done(error | None)`: None means "read the applied state now". `pending_max_count` bounds
    them, as no bytes of theirs can be counted.
    """

    def __init__(
        self,
        request_read: Callable[[int, bool], None],
        wake: Callable[[], None],
        now: Callable[[], float],
        *,
        first_request_id: int,
        timeout_s: float,
        pending_max_count: int = 1 << 16,
    ) -> None:
        self._request_read = request_read
        self._wake = wake
        self._now = now
        self._timeout_s = timeout_s
        self._pending_max_count = pending_max_count
        self.pending_count = 0
        self._next_request_id = first_request_id
        self._gathering: dict[bool, _Group] = {}
        self._asked: dict[int, _Group] = {}
        self._confirmed: list[_Group] = []
        self._is_closed = False

    def submit(self, done: Done, *, is_lease: bool = False) -> None:
        """Queue one read; `done(None)` when the applied state is new enough, `done(error)` otherwise."""
        if self._is_closed:
            done(ShuttingDown("the node is stopping; ask another member"))
            return
        if self.pending_count >= self._pending_max_count:
            done(Overloaded(f"{self.pending_count} reads are waiting; slow down and try again"))
            return
        self.pending_count += 1
        group = self._gathering.get(is_lease)
        if group is None:
            group = self._gathering[is_lease] = _Group(is_lease, self._now() + self._timeout_s)
            self._wake()
        group.reads.append(done)

    def flush(self) -> bool:
        """Ask the core for the groups that wait, one round of each kind at a time. True if it was asked."""
        has_asked = False
        for is_lease in tuple(self._gathering):
            if any(group.is_lease == is_lease and not group.is_refused for group in self._asked.values()):
                continue
            self._ask(self._gathering.pop(is_lease))
            has_asked = True
        return has_asked

    def confirmed(self, reads: list[ConfirmedRead], applied_index: int) -> None:
        for read in reads:
            group = self._asked.pop(read.request_id, None)
            if group is not None:
                group.read_index = read.read_index
                self._confirmed.append(group)
        self.applied(applied_index)
        if self._gathering:
            self._wake()

    def refused(self, request_ids: list[int]) -> None:
        """The core cannot confirm these now; they ask again at the next `retry`."""
        for request_id in request_ids:
            group = self._asked.get(request_id)
            if group is not None:
                group.is_refused = True

    def applied(self, applied_index: int) -> None:
        if not self._confirmed:
            return
        ready = [group for group in self._confirmed if group.read_index <= applied_index]
        if not ready:
            return
        self._confirmed = [group for group in self._confirmed if group.read_index > applied_index]
        for group in ready:
            self._tell(group, None)

    def retry(self) -> None:
        """Called every tick: refused groups ask again, late ones end."""
        now = self._now()
        for request_id in [i for i, g in self._asked.items() if g.deadline_s <= now]:
            self._tell(self._asked.pop(request_id), _late())
        for is_lease in [kind for kind, g in self._gathering.items() if g.deadline_s <= now]:
            self._tell(self._gathering.pop(is_lease), _late())
        for group in [g for g in self._confirmed if g.deadline_s <= now]:
            self._confirmed.remove(group)
            self._tell(group, _late())
        for request_id in [i for i, g in self._asked.items() if g.is_refused]:
            self._ask(self._asked.pop(request_id))

    def close(self) -> None:
        self._is_closed = True
        self.refuse_all(ShuttingDown("the node is stopping; ask another member"))

    def refuse_all(self, error: RaftkvError) -> None:
        """What waits now is told `error`; what comes later is asked as ever, unless this is closed."""
        groups = [*self._gathering.values(), *self._asked.values(), *self._confirmed]
        self._gathering, self._asked, self._confirmed = {}, {}, []
        for group in groups:
            self._tell(group, error)

    def _ask(self, group: _Group) -> None:
        # A fresh id each time: a late answer to an earlier question must not count for this one (etcd#20418).
        group.request_id = self._next_request_id
        self._next_request_id += 1
        group.is_refused = False
        self._asked[group.request_id] = group
        self._request_read(group.request_id, group.is_lease)
        self._wake()

    def _tell(self, group: _Group, outcome: RaftkvError | None) -> None:
        self.pending_count -= len(group.reads)
        for done in group.reads:
            done(outcome)


def _late() -> ReadTimeout:
    return ReadTimeout("no leader confirmed the read in time; nothing was changed, try again")
