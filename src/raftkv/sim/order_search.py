"""The search for an order of one key's operations, which `linearizability` rests on and describes.

Every rule that keeps the search short is written, with its proof, where it is used.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from raftkv.sim.history import Kind, Operation

Value: TypeAlias = bytes | None


class Undecided(Exception):
    """The search of `key` visited `state_limit` states and found neither an order nor that there is none."""

    def __init__(self, key: bytes, state_limit: int) -> None:
        super().__init__(
            f"cannot tell if the operations on {key!r} are linearizable: its search ended after {state_limit} states. "
            "Raise state_limit, or record a run that is shorter or has fewer operations at a time"
        )
        self.key = key
        self.state_limit = state_limit


def call_s(operation: Operation) -> float:
    return operation.call_s


class Budget:
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


class Search:
    """One search for an order of the operations on one key.

    A state is what has gone and what the key holds. With `looks_ahead` false the search goes on where it could know
    better, up to the operation that anyone can see is wrong.
    """

    def __init__(self, operations: Iterable[Operation], budget: Budget, *, looks_ahead: bool = True) -> None:
        operations = sorted(operations, key=call_s)
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
        any order goes on with a write. A write goes without a choice if all gets left that want its value can go right
        after it, or none is left: put in with them just before that other write, it is seen by nobody else, and nobody
        misses it where it was.
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

        An open write goes only where a get that wants it can go next: elsewhere it can be left out. An open write never
        returns, so a completed one of the same value comes before it.
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
        """False if this state, or one at least as good, was met before: it led to nothing, or the search had ended.

        A value that no get left wants is as good as any other, and more open writes left are at least as good as fewer.
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
