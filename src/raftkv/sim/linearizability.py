"""Whether one copy of the data, changed and read in single instants, explains all that the clients saw.

The search is Wing & Gong's (1993) as Lowe (2017) made it fast. The calls and returns of a key's operations stand in a
linked list in order of time. What was called before the first return that is left may go next; what goes is unlinked,
and linked again when the search steps back; a memo of (what has gone, value) keeps it from arriving at one place twice.
Each key is searched alone: linearizability is local (Herlihy & Wing 1990, theorem 1).

Writes without a known outcome overlap with all that follows, and 50 of them would be 2^50 subsets. What keeps the
search near one step per operation are rules of the kind "if the rest can be ordered from here at all, then it can be
ordered beginning like this". They hold at every step and for any values; each stands with its reason where it is used.
All rest on two moves that turn one good order into another:

- Earlier: what may go next can be moved to the front. It was called before anything that is left returned, so real time
  asks for nothing to be before it.
- Away: a write that no get sees, because another write or nothing comes next, can be left out if it is open, or put in
  just before any other write. No get sees a difference: those that would are between it and the next write, and there
  are none. That a put's value or a delete's "absent" is also seen elsewhere, from other writes or from the start, does
  not matter.

Turned down: following all orders at once through time. It needs no stepping back, but pays for every order where the
search needs one. Turned down, too: the polynomial algorithm for unique values (Gibbons & Korach 1997). Deletes are not
unique, and with unique values the rules leave little to search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from raftkv.sim.history import Kind, Operation
from raftkv.sim.order_search import Budget, Search, Undecided, Value, call_s

STATE_LIMIT = 200_000
"""For one key: some ten seconds and a hundred megabytes. With unique values there are fewer states than operations."""

SHORTENING_LIMIT = 500_000
"""States and operations looked at to make one explanation short; after that it stays as long as it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """Some operations on one key that no order explains, and how far the longest order gets.

    `operations` are in order of call, and each of their gets matters: without it the others have an order (unless
    SHORTENING_LIMIT came first). `longest_order` are those that can be ordered, in that order, `value` is what the key
    then holds, and `blocked` are the gets one of which would have to be next.
    """

    key: bytes
    operation_count: int
    operations: tuple[Operation, ...]
    longest_order: tuple[Operation, ...]
    value: Value
    blocked: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = [f"  {number}. {operation}" for number, operation in enumerate(self.operations, 1)]
        return (
            f"{self.key!r} is not linearizable: no order explains these of its {self.operation_count} operations\n"
            + "\n".join(lines)
            + f"\nThe longest order is {self._numbers(self.longest_order) or 'empty'}; {self.key!r} is then "
            f"{'absent' if self.value is None else repr(self.value)}, and next would be {self._numbers(self.blocked)}"
        )

    def _numbers(self, operations: Iterable[Operation]) -> str:
        return ", ".join(str(self.operations.index(operation) + 1) for operation in operations)


def check(history: Sequence[Operation], *, state_limit: int = STATE_LIMIT) -> Violation | None:
    """None if `history`, of all clients and in any order, is linearizable; each key is absent at first.

    An operation that returned at the moment another was called counts as concurrent with it, and a client may have
    several at a time. Raises ValueError for what is no operation, and Undecided if a key needs more than `state_limit`
    states and no other key is surely wrong.
    """
    by_key: defaultdict[bytes, list[Operation]] = defaultdict(list)
    for operation in history:
        _require_sense(operation)
        by_key[operation.key].append(operation)
    undecided: Undecided | None = None
    for key, operations in by_key.items():
        try:
            if not Search(operations, Budget(key, state_limit)).finds_order():
                return _explain(key, operations)
        except Undecided as error:
            undecided = undecided or error
    if undecided is not None:
        raise undecided
    return None


def _require_sense(operation: Operation) -> None:
    kind = operation.kind
    if (
        not operation.call_s <= operation.return_s
        or (kind is Kind.GET and operation.is_open)
        or (kind is not Kind.GET and (kind is Kind.DELETE) != (operation.value is None))
    ):
        raise ValueError(f"a history cannot hold this operation: {operation}")


def _explain(key: bytes, operations: list[Operation]) -> Violation:
    """Shorten first: a dead end of the whole history shows hundreds of operations, and not those that matter."""
    short = _shorten(operations, Budget(key, SHORTENING_LIMIT))
    search = Search(short, Budget(key, SHORTENING_LIMIT), looks_ahead=False)
    with contextlib.suppress(Undecided):
        search.finds_order()
    value = next((step.value for step in reversed(search.longest_order) if step.kind is not Kind.GET), None)
    return Violation(key, len(operations), tuple(short), search.longest_order, value, search.blocked)


def _shorten(operations: list[Operation], budget: Budget) -> list[Operation]:
    """Those that still have no order, in order of call: no get too many, and of the writes those that explain the gets.

    Only gets are left out, and writes that no get of the rest needs to have seen. Whatever order the whole history had,
    the rest in the same order would see the same: if the rest has none, neither has the whole. A write that may have
    been seen has to stay, or each get would look like one of a value never written.
    """

    def has_no_order(part: list[Operation]) -> bool:
        try:
            budget.spend(len(part))
            return not Search(part, budget).finds_order()
        except Undecided:
            return False

    def needed(part: list[Operation], others: list[Operation]) -> list[Operation]:
        """What of `part` has to stay beside `others`, the earlier if there is a choice (Junker 2004, QuickXplain)."""
        if not part or has_no_order(others):
            return []
        if len(part) == 1:
            return part
        middle = len(part) // 2
        later = needed(part[middle:], others + part[:middle])
        return needed(part[:middle], others + later) + later

    operations = sorted(operations, key=call_s)
    writes = [operation for operation in operations if operation.kind is not Kind.GET]
    gets = needed([operation for operation in operations if operation.kind is Kind.GET], writes)
    wanted_counts = Counter(get.value for get in gets)
    seen = {write for get in gets for write in _sources(get, writes, wanted_counts[get.value])}
    kept = gets + [write for write in writes if write in seen]
    return sorted(kept + needed([write for write in writes if write not in seen], kept), key=call_s)


def _sources(get: Operation, writes: list[Operation], wanted_count: int) -> list[Operation]:
    """What `get` may have seen: writes of its value neither later nor surely overwritten; or else the nearest of these.

    `writes` are in order of call, and `wanted_count` gets want this value. They need no more open writes than that, and
    an order that uses others can use the earliest.
    """
    same = [write for write in writes if write.value == get.value]
    overwritten_s = max((write.call_s for write in writes if write.return_s < get.call_s), default=-math.inf)
    possible = [write for write in same if write.call_s <= get.return_s and write.return_s >= overwritten_s]
    completed = [write for write in possible if not write.is_open]
    nearest = sorted(same, key=lambda write: (write.call_s <= get.return_s, write.call_s))[-1:]
    return completed + [write for write in possible if write.is_open][:wanted_count] or nearest
