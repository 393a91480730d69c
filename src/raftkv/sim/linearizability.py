"""Whether one copy of the data, changed and read in single instants, explains all that the clients saw.

The search is Wing & Gong's (1993) as Lowe (2017) made it fast. The calls and returns of a key's operations stand in a
linked list in order of time. What was called before the first return that is left may go next; what goes is unlinked,
and linked again when the search steps back; a memo of (what has gone, value) keeps it from arriving at one place twice.
Each key is searched alone: linearizability is local (Herlihy & Wing 1990, theorem 1).

Writes without a known outcome overlap with all that follows, and 50 of them would be 2^50 subsets. What keeps the
search near one step per operation are rules of the kind "if the rest can be ordered from here at all, then it can be
ordered beginning like this". They hold at every step and for any values; each stands with its proof where it is
used. All rest on two moves. Earlier: what may go next may be moved to the front, as far as real time is concerned.
Away: a write that no get sees, because another write or nothing follows it, may be left out or put in anywhere before a
write.

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
from typing import TypeAlias

from raftkv.sim.history import Kind, Operation

Value: TypeAlias = bytes | None

STATE_LIMIT = 500_000
"""Of one key; some seconds and a few hundred megabytes. A history of 10,000 operations needs about as many states."""

SHORTENING_LIMIT = 200_000
"""States and operations looked at to make an explanation short; then it stays as long as it is."""


class Undecided(Exception):
    """The search of `key` visited `state_limit` states and found neither an order nor that there is none."""

    def __init__(self, key: bytes, state_limit: int) -> None:
        super().__init__(
            f"cannot tell if the operations on {key!r} are linearizable: its search ended after {state_limit} states. "
            "Raise state_limit, or record a run that is shorter or has fewer operations at a time"
        )
        self.key = key
        self.state_limit = state_limit


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """Some operations on one key that no order explains, and how far the best order gets.

    `operations` are in order of call, and without any of their gets the others have an order. `longest_order` are
    those that can be ordered, in that order, `value` is what the key then holds, and `blocked` are the gets one of
    which would have to be next.
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
            if not _Search(operations, _Budget(key, state_limit)).finds_order():
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
    short = _shorten(operations, _Budget(key, SHORTENING_LIMIT))
    search = _Search(short, _Budget(key, SHORTENING_LIMIT), looks_ahead=False)
    with contextlib.suppress(Undecided):
        search.finds_order()
    value = next((step.value for step in reversed(search.longest_order) if step.kind is not Kind.GET), None)
    return Violation(key, len(operations), tuple(short), search.longest_order, value, search.blocked)


def _shorten(operations: list[Operation], budget: _Budget) -> list[Operation]:
    """Those that still have no order, in order of call: no get too many, and of the writes those that explain the gets.

    Only gets are left out, and writes that no get of the rest can have seen. Whatever order the whole history had, the
    rest in the same order would see the same: if the rest has none, neither has the whole. A write that may have been
    seen has to stay, or each get would look like one of a value never written.
    """

    def has_no_order(part: list[Operation]) -> bool:
        try:
            budget.spend(len(part))
            return not _Search(part, budget).finds_order()
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

    operations = sorted(operations, key=_call_s)
    writes = [operation for operation in operations if operation.kind is not Kind.GET]
    gets = needed([operation for operation in operations if operation.kind is Kind.GET], writes)
    seen = set().union(*(_sources(get, writes) for get in gets))
    kept = gets + [write for write in writes if write in seen]
    return sorted(kept + needed([write for write in writes if write not in seen], kept), key=_call_s)


def _sources(get: Operation, writes: list[Operation]) -> list[Operation]:
    """What `get` may have seen: writes of its value neither later nor surely overwritten; or else the nearest such."""
    same = [write for write in writes if write.value == get.value]
    overwritten_s = max((write.call_s for write in writes if write.return_s < get.call_s), default=-math.inf)
    possible = [write for write in same if write.call_s <= get.return_s and write.return_s >= overwritten_s]
    return possible or sorted(same, key=lambda write: (write.call_s <= get.return_s, write.call_s))[-1:]


def _call_s(operation: Operation) -> float:
    return operation.call_s


class _Budget:
    def __init__(self, key: bytes, state_limit: int) -> None:
        self._key = key
        self._limit = state_limit
        self._left = state_limit

    def spend(self, count: int = 1) -> None:
        self._left -= count
        if self._left < 0:
            raise Undecided(self._key, self._limit)


class _Event:
    """A call or a return in a list linked both ways. The list is a ring; its end is like a return that never comes."""

    __slots__ = ("following", "previous", "time_s")

    def __init__(self, time_s: float) -> None:
        self.time_s = time_s
        self.previous = self.following = self

    def unlink(self) -> None:
        self.previous.following = self.following
        self.following.previous = self.previous

    def link(self) -> None:
        """Back to where it was: what was unlinked last comes back first."""
        self.previous.following = self
        self.following.previous = self


class _Call(_Event):
    """`number` is the place among the calls of its search, those of open writes counted apart."""

    __slots__ = ("answer", "number", "operation")

    def __init__(self, number: int, operation: Operation) -> None:
        super().__init__(operation.call_s)
        self.number = number
        self.operation = operation
        self.answer = _Event(operation.return_s)


def _link(calls: list[_Call]) -> _Event:
    """The end of the ring. At equal times, calls stand before returns: who meets, overlaps."""
    end = _Event(math.inf)
    returns = sorted((call.answer for call in calls), key=lambda answer: answer.time_s)
    for event in sorted([*calls, *returns], key=lambda event: event.time_s):
        event.previous, event.following = end.previous, end
        event.link()
    return end


class _Search:
    """One search for an order of the operations on one key.

    A state is what has gone and what the key holds. With `looks_ahead` false the search goes on where it could know
    better, up to the operation that anyone can see is wrong.
    """

    def __init__(self, operations: Iterable[Operation], budget: _Budget, *, looks_ahead: bool = True) -> None:
        operations = sorted(operations, key=_call_s)
        self.longest_order: tuple[Operation, ...] = ()
        self.blocked: tuple[Operation, ...] = ()
        self._longest_count = -1
        self._budget = budget
        self._looks_ahead = looks_ahead
        completed = (operation for operation in operations if not operation.is_open)
        self._end = _link([_Call(number, operation) for number, operation in enumerate(completed)])
        # By value, the earliest call last. Open writes of one value differ only in when they may begin to take effect:
        # an order that uses some of them can use the earliest ones.
        self._open_writes: defaultdict[Value, list[_Call]] = defaultdict(list)
        for number, operation in enumerate(operation for operation in reversed(operations) if operation.is_open):
            self._open_writes[operation.value].append(_Call(number, operation))
        self._gets_left = Counter(operation.value for operation in operations if operation.kind is Kind.GET)
        self._writes_left = Counter(operation.value for operation in operations if operation.kind is not Kind.GET)
        self._value: Value = None
        self._gone: list[tuple[_Call, Value]] = []  # each with the value before it
        self._gone_completed = 0  # a set of numbers: bit n is call n
        self._gone_open = 0
        self._visited: defaultdict[tuple[int, int, bool, Value], list[int]] = defaultdict(list)

    def finds_order(self) -> bool:
        """Raises Undecided when the budget is spent. To be called once."""
        untried: list[tuple[int, list[_Call]]] = []
        choices = self._advance()
        while self._end.following is not self._end:
            if choices:
                untried.append((len(self._gone), choices))
                self._go(choices.pop())
                choices = self._advance()
                continue
            self._note_dead_end()
            if not untried:
                return False
            gone_count, choices = untried.pop()
            self._step_back(gone_count)
        return True

    def _advance(self) -> list[_Call]:
        """Let go what may go without a choice; then the writes to choose from, best last, or none at a dead end.

        A get of the present value goes at once: moved to the front, it sees the same and holds nobody up. After these,
        any order goes on with a write. So a write goes now if all gets left that want its value can go right after it,
        or none is left: these put in just before that other write, nobody else misses it or sees it.
        """
        while True:
            waiting = self._let_gets_go()
            if self._is_value_lost():
                return []
            choices = self._choices(waiting)
            gets_waiting = Counter(call.operation.value for call in waiting if call.operation.kind is Kind.GET)
            free = [
                call for call in choices if gets_waiting[call.operation.value] == self._gets_left[call.operation.value]
            ]
            if not free:
                return choices if choices and self._visit(waiting[0].number) else []
            for call in free:
                self._go(call)
                self._let_gets_go()

    def _let_gets_go(self) -> list[_Call]:
        """What else may go next: all that was called before the first return that is left."""
        waiting: list[_Call] = []
        event = self._end.following
        while isinstance(event, _Call):
            if event.operation.kind is Kind.GET and event.operation.value == self._value:
                self._go(event)
            else:
                waiting.append(event)
            event = event.following
        return waiting

    def _is_value_lost(self) -> bool:
        """Some get left wants the present value, which it cannot see yet, and which no write can bring back."""
        return self._looks_ahead and self._gets_left[self._value] > 0 and not self._writes_left[self._value]

    def _choices(self, waiting: list[_Call]) -> list[_Call]:
        """One write for each value, the first to return: in an order that begins with another, the two can be swapped.

        An open write goes only where a get that wants it can go next: elsewhere nobody sees it, which is as good as
        never. A completed write of the same value, if there is one, returns before it.
        """
        first_return_s = min((call.operation.return_s for call in waiting), default=math.inf)
        choices: dict[Value, _Call] = {}
        for call in sorted(waiting, key=lambda call: call.operation.return_s):
            if call.operation.kind is not Kind.GET:
                choices.setdefault(call.operation.value, call)
        for call in waiting:
            open_writes = self._open_writes.get(call.operation.value)
            if open_writes and open_writes[-1].time_s <= first_return_s:
                choices.setdefault(call.operation.value, open_writes[-1])
        return sorted(choices.values(), key=lambda call: -call.operation.return_s)

    def _visit(self, first_number: int) -> bool:
        """False if this is a dead end already known, as far as states differ in what matters.

        A value that no get left wants is like any other, and to have more open writes left does no harm.
        """
        is_wanted = self._gets_left[self._value] > 0
        state = (first_number, self._gone_completed >> first_number, is_wanted, self._value if is_wanted else None)
        if any(gone_open & self._gone_open == gone_open for gone_open in self._visited[state]):
            return False
        self._visited[state].append(self._gone_open)
        self._budget.spend()
        return True

    def _go(self, call: _Call) -> None:
        self._gone.append((call, self._value))
        self._count(call, -1)
        if call.operation.kind is not Kind.GET:
            self._value = call.operation.value
        if call.operation.is_open:
            self._open_writes[call.operation.value].pop()
        else:
            call.answer.unlink()
            call.unlink()

    def _step_back(self, gone_count: int) -> None:
        """Until `gone_count` operations are gone."""
        while len(self._gone) > gone_count:
            call, self._value = self._gone.pop()
            self._count(call, +1)
            if call.operation.is_open:
                self._open_writes[call.operation.value].append(call)
            else:
                call.link()
                call.answer.link()

    def _count(self, call: _Call, change: int) -> None:
        left = self._gets_left if call.operation.kind is Kind.GET else self._writes_left
        left[call.operation.value] += change
        if call.operation.is_open:
            self._gone_open ^= 1 << call.number
        else:
            self._gone_completed ^= 1 << call.number

    def _note_dead_end(self) -> None:
        """Open writes do not count: they may go or not."""
        count = len(self._gone) - self._gone_open.bit_count()
        if count > self._longest_count:
            self._longest_count = count
            self.longest_order = tuple(call.operation for call, _ in self._gone)
            self.blocked = tuple(call.operation for call in self._let_gets_go())
