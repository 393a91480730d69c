"""When may a node answer from its own state?

After a restart, or a pause of the whole process, the applied state may lie behind what clients have already
seen elsewhere. So local reads wait until the leader has confirmed a commit index *after* the node woke and
the node has applied it: the same question that a linearizable read asks (Thesis §6.4). Without any leader
for `wait_s` they are served all the same, and marked, because old configuration is often better than none. So are
they by a node that was removed from its cluster: no leader tells it anything any more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any


class GateState(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    MARKED = "marked"
    """Open without a leader's word: answers carry the mark."""


class ReadGate:
    """`ask(done)` queues a linearizable read; `done(None)` confirms, `done(error)` does not.

    `changed` is called after every change of `state`.
    """

    def __init__(
        self,
        ask: Callable[[Callable[[Any], None]], None],
        now: Callable[[], float],
        wait_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._now = now
        self._wait_s = wait_s
        self._changed = changed
        self._closed_at_s = now()
        self._question = 0
        self._is_asking = False
        self.state = GateState.CLOSED

    @property
    def is_confirmed(self) -> bool:
        return self.state is GateState.OPEN

    def close(self) -> None:
        """Whatever was confirmed before now no longer counts."""
        self._closed_at_s = self._now()
        self._question += 1  # an answer to an older question must not open the gate
        self._is_asking = False
        self._become(GateState.CLOSED)

    def tick(self, *, can_be_confirmed: bool = True) -> None:
        """Ask again if nothing is asked, and open with the mark when the wait is over.

        While it cannot be confirmed nothing is asked, and what was confirmed before is marked from now on.
        """
        if not can_be_confirmed:
            self._withdraw()
        elif self.state is GateState.OPEN:
            return
        elif not self._is_asking:
            self._is_asking = True
            question = self._question
            self._ask(lambda error: self._answered(question, error))
        if self.state is GateState.CLOSED and self._now() - self._closed_at_s >= self._wait_s:
            self._become(GateState.MARKED)

    def _withdraw(self) -> None:
        self._question += 1  # as in `close`
        self._is_asking = False
        if self.state is GateState.OPEN:
            self._become(GateState.MARKED)

    def _answered(self, question: int, error: Any) -> None:
        if question != self._question:
            return
        self._is_asking = False
        if error is None:
            self._become(GateState.OPEN)

    def _become(self, state: GateState) -> None:
        if state is not self.state:
            self.state = state
            self._changed()
