"""The checker of histories: against all orders tried out, on the classics by name, and on runs of a true register."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest

from raftkv.sim.history import FOREVER, Kind, Operation
from raftkv.sim.linearizability import Violation, check
from raftkv.sim.order_search import Undecided

KEY = b"k"


def put(value: bytes, call_s: float, return_s: float, client: str = "a") -> Operation:
    return Operation(client, Kind.PUT, KEY, value, call_s, return_s)


def delete(call_s: float, return_s: float, client: str = "a") -> Operation:
    return Operation(client, Kind.DELETE, KEY, None, call_s, return_s)


def get(value: bytes | None, call_s: float, return_s: float, client: str = "b") -> Operation:
    return Operation(client, Kind.GET, KEY, value, call_s, return_s)


ACCEPTED: dict[str, list[Operation]] = {
    "nothing happened": [],
    "absent at first": [get(None, 0, 1)],
    "own write": [put(b"1", 0, 1), get(b"1", 2, 3)],
    "a deleted key is absent": [put(b"1", 0, 1), delete(2, 3), get(None, 4, 5)],
    "a write under way is seen or not": [put(b"1", 0, 5), get(None, 1, 2), get(b"1", 3, 4)],
    "two writes at a time, in the order that the get asks for": [
        put(b"1", 0, 3),
        put(b"2", 1, 2, "c"),
        get(b"1", 4, 5),
    ],
    "a value comes back because it was written again": [
        put(b"1", 0, 1),
        put(b"2", 2, 3),
        get(b"2", 4, 5),
        put(b"1", 6, 7),
        get(b"1", 8, 9),
    ],
    "touching intervals are concurrent": [put(b"1", 0, 1), put(b"2", 1, 2), get(b"1", 2, 3)],
    "moments at one time are concurrent": [get(b"1", 1, 1), put(b"1", 1, 1), get(None, 1, 1)],
    "one client may have several at a time": [put(b"1", 0, 9), get(b"1", 1, 5, "a"), get(None, 2, 4, "a")],
    "an open write seen late": [put(b"1", 0, FOREVER), put(b"2", 1, 2), get(b"2", 3, 4), get(b"1", 500, 501)],
    "an open write that never happens": [put(b"1", 0, FOREVER), put(b"2", 1, 2), get(b"2", 3, 4)],
    "an open delete seen late": [put(b"1", 0, 1), delete(2, FOREVER), get(b"1", 3, 4), get(None, 5, 6)],
    "an open delete that never happens": [put(b"1", 0, 1), delete(2, FOREVER), get(b"1", 3, 4)],
    "two open deletes, each seen once": [
        delete(0, FOREVER),
        delete(0, FOREVER),
        put(b"1", 1, 2),
        get(None, 3, 4),
        put(b"2", 5, 6),
        get(None, 7, 8),
    ],
    "two open writes of one value, the second called later": [
        put(b"1", 0, FOREVER),
        get(b"1", 1, 2),
        put(b"2", 3, 4),
        put(b"1", 5, FOREVER),
        get(b"2", 6, 7),
        get(b"1", 8, 9),
    ],
    "each key is a register of its own": [
        put(b"1", 0, 1),
        get(None, 2, 3)._replace(key=b"other"),
        get(b"1", 4, 5),
    ],
}

REJECTED: dict[str, list[Operation]] = {
    "stale read": [put(b"1", 0, 1), put(b"2", 2, 3), get(b"1", 4, 5)],
    "lost update": [put(b"1", 0, 1), get(None, 2, 3)],
    "lost update among two at a time": [put(b"1", 0, 1), put(b"2", 2, 4), put(b"3", 3, 5, "c"), get(b"1", 6, 7)],
    "a value never written": [put(b"1", 0, 1), get(b"2", 0, 1)],
    "a value from the future": [get(b"1", 0, 1), put(b"1", 2, 3)],
    "back in time between two clients": [put(b"1", 0, 9), get(b"1", 1, 2, "b"), get(None, 3, 4, "c")],
    "two clients see two writes in different order": [
        put(b"1", 0, 9, "a"),
        put(b"2", 0, 9, "b"),
        get(b"1", 1, 2, "c"),
        get(b"2", 3, 4, "c"),
        get(b"1", 5, 6, "d"),
    ],
    "a deleted value": [put(b"1", 0, 1), delete(2, 3), get(b"1", 4, 5)],
    "a delete that was lost": [put(b"1", 0, 1), delete(2, 3), get(b"1", 4, 5), get(b"1", 6, 7)],
    "absent although nobody deleted": [put(b"1", 0, 1), put(b"2", 0, FOREVER), get(None, 2, 3)],
    "an open write happens twice": [
        put(b"1", 0, FOREVER),
        get(b"1", 1, 2),
        put(b"2", 3, 4),
        get(b"2", 5, 6),
        get(b"1", 7, 8),
    ],
    "an open write is seen and then not": [put(b"1", 0, FOREVER), get(b"1", 1, 2), get(None, 3, 4)],
    "an open write is seen before its call": [get(b"1", 0, 1), put(b"1", 2, FOREVER)],
    "an open delete happens twice": [
        delete(0, FOREVER),
        put(b"1", 1, 2),
        get(None, 3, 4),
        put(b"2", 5, 6),
        get(None, 7, 8),
    ],
    "an open delete is seen before its call": [put(b"1", 0, 1), get(None, 2, 3), delete(4, FOREVER)],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    for history in itertools.islice(itertools.permutations(ACCEPTED[name]), 24):
        assert check(history) is None, "in whatever order it was recorded"


@pytest.mark.parametrize("name", REJECTED)
def test_rejected(name: str) -> None:
    for history in itertools.islice(itertools.permutations(REJECTED[name]), 24):
        assert check(history) is not None, "in whatever order it was recorded"


def test_a_violation_says_how_far_it_went_and_what_cannot_be_next() -> None:
    stale, noise = get(b"1", 6, 7), [put(b"0", 0, 1), get(b"0", 2, 2.5), get(b"2", 6, 6.5, "c")]
    history = [*noise, put(b"1", 3, 4), put(b"2", 4.5, 5), stale, put(b"3", 8, FOREVER), get(b"3", 9, 10)]
    violation = check(history)
    assert violation == Violation(
        key=KEY,
        operation_count=8,
        operations=(put(b"1", 3, 4), put(b"2", 4.5, 5), stale),
        longest_order=(put(b"1", 3, 4), put(b"2", 4.5, 5)),
        value=b"2",
        blocked=(stale,),
    )
    assert str(violation).splitlines() == [
        "b'k' is not linearizable: no order explains these of its 8 operations",
        "  1. a: put b'k' b'1' [3.000000, 4.000000]",
        "  2. a: put b'k' b'2' [4.500000, 5.000000]",
        "  3. b: get b'k' b'1' [6.000000, 7.000000]",
        "The longest order is 1, 2; b'k' is then b'2', and next would be 3",
    ]


def test_a_violation_of_an_empty_key() -> None:
    violation = check([get(b"9", 0, 1), get(None, 0, 1)])
    assert str(violation).splitlines() == [
        "b'k' is not linearizable: no order explains these of its 2 operations",
        "  1. b: get b'k' b'9' [0.000000, 1.000000]",
        "The longest order is empty; b'k' is then absent, and next would be 1",
    ]


EARLY = [delete(2 * turn, 2 * turn + 1) for turn in range(20)]


@pytest.mark.parametrize(
    ("history", "shown"),
    [
        ([*EARLY, put(b"1", 50, 51), get(None, 52, 53)], [EARLY[-1], put(b"1", 50, 51), get(None, 52, 53)]),
        ([*EARLY, get(b"1", 50, 51), put(b"1", 52, 53)], [get(b"1", 50, 51), put(b"1", 52, 53)]),
        (
            [*EARLY, put(b"1", 50, 60), get(b"1", 51, 52), get(None, 53, 54)],
            [EARLY[-1], put(b"1", 50, 60), get(b"1", 51, 52), get(None, 53, 54)],
        ),
        (
            [*(delete(at_s, FOREVER) for at_s in range(20)), put(b"1", 30, 40), get(None, 41, 42), get(b"1", 43, 44)],
            [delete(0, FOREVER), put(b"1", 30, 40), get(None, 41, 42), get(b"1", 43, 44)],
        ),
    ],
)
def test_of_the_writes_of_a_value_those_are_shown_that_a_get_may_have_seen(
    history: list[Operation], shown: list[Operation]
) -> None:
    violation = check(history)
    assert violation is not None
    assert list(violation.operations) == shown


@pytest.mark.parametrize(
    "operation",
    [put(b"1", 1, 0), get(None, 0, FOREVER), put(b"1", 0, 1)._replace(value=None), delete(0, 1)._replace(value=b"1")],
    ids=str,
)
def test_what_is_no_operation_is_refused(operation: Operation) -> None:
    with pytest.raises(ValueError, match="cannot hold this operation"):
        check([operation])


def most_ordered_count(operations: list[Operation]) -> int:
    """By trying all orders, of all keys at once: the most completed operations that one can begin with."""

    def follow(left: list[Operation], values: dict[bytes, bytes | None]) -> int:
        best = 0
        for operation in left:
            if any(other.return_s < operation.call_s for other in left):
                continue
            if operation.kind is Kind.GET and values.get(operation.key) != operation.value:
                continue
            rest = [other for other in left if other is not operation]
            after = values if operation.kind is Kind.GET else {**values, operation.key: operation.value}
            best = max(best, (not operation.is_open) + follow(rest, after))
            if best == completed_count(left):
                break
        return best

    return follow(operations, {})


def completed_count(operations: list[Operation]) -> int:
    return sum(not operation.is_open for operation in operations)


def small_history(choose: random.Random) -> list[Operation]:
    """Few values and whole numbers as times, so that both repeat. Most have one get that saw just anything."""
    keys = [b"k", b"l"][: choose.choice([1, 1, 2])]
    effects: list[tuple[float, Operation]] = []
    for _ in range(choose.randint(2, 7)):
        effect_s, client = choose.uniform(0, 8), f"c{choose.randrange(3)}"
        call_s, return_s = (
            math.floor(effect_s - choose.choice([0, 1, 2])),
            math.ceil(effect_s + choose.choice([0, 1, 2])),
        )
        kind = choose.choice([Kind.PUT, Kind.PUT, Kind.DELETE, Kind.GET, Kind.GET, Kind.GET])
        value = choose.choice([b"1", b"2"]) if kind is Kind.PUT else None
        operation = Operation(client, kind, choose.choice(keys), value, call_s, return_s)
        if kind is not Kind.GET and choose.random() < 0.3:
            operation = operation._replace(return_s=FOREVER)
            effect_s += choose.choice([0, 2, 4, FOREVER])
        effects.append((effect_s, operation))
    history = seen_in_order(effects)
    gets = [place for place, operation in enumerate(history) if operation.kind is Kind.GET]
    if gets and choose.random() < 0.9:
        place = choose.choice(gets)
        history[place] = history[place]._replace(value=choose.choice([b"1", b"2", None]))
    choose.shuffle(history)
    return history


def seen_in_order(effects: list[tuple[float, Operation]]) -> list[Operation]:
    """The operations with what their gets see, each at its effect; at FOREVER, never."""
    values: dict[bytes, bytes | None] = {}
    history: list[Operation] = []
    for effect_s, operation in sorted(effects, key=lambda pair: pair[0]):
        if operation.kind is Kind.GET:
            operation = operation._replace(value=values.get(operation.key))
        elif effect_s < FOREVER:
            values[operation.key] = operation.value
        history.append(operation)
    return history


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_all_orders_tried_out(seed: int) -> None:
    choose = random.Random(seed)
    accepted_count = 0
    for _ in range(500):
        history = small_history(choose)
        is_linearizable = most_ordered_count(history) == completed_count(history)
        violation = check(history)
        assert (violation is None) == is_linearizable, history
        accepted_count += is_linearizable
        if violation is not None:
            assert_true_to(history, violation)
    assert 150 < accepted_count < 350, "about half"


def assert_true_to(history: list[Operation], violation: Violation) -> None:
    """It shows operations of one key that have no order, as few as can be, and the longest order of them."""
    shown = list(violation.operations)
    assert set(shown) <= {operation for operation in history if operation.key == violation.key}
    assert most_ordered_count(shown) == completed_count(list(violation.longest_order)) < completed_count(shown)
    assert violation.blocked
    assert all(operation.kind is Kind.GET and operation.value != violation.value for operation in violation.blocked)
    for get in (operation for operation in shown if operation.kind is Kind.GET):
        fewer = [operation for operation in shown if operation is not get]
        assert most_ordered_count(fewer) == completed_count(fewer), "each get shown matters"


def recorded_run(
    seed: int,
    *,
    operation_count: int,
    client_count: int = 8,
    key_count: int = 1,
    open_share: float = 0.04,
    value_of: Callable[[int], bytes] = b"%d".__mod__,
) -> list[Operation]:
    """A true register behind a slow network. An open write takes effect much later, or one time in three never."""
    choose = random.Random(seed)
    free_s = dict.fromkeys(range(client_count), 0.0)
    effects: list[tuple[float, Operation]] = []
    for number in range(operation_count):
        client = min(free_s, key=free_s.__getitem__)
        call_s = free_s[client] + choose.expovariate(1000)
        return_s = call_s + choose.expovariate(100)
        effect_s = choose.uniform(call_s, return_s)
        kind = choose.choices([Kind.PUT, Kind.DELETE, Kind.GET], [4, 1, 5])[0]
        value = value_of(number) if kind is Kind.PUT else None
        key = b"key%d" % choose.randrange(key_count)
        operation = Operation(f"client{client}", kind, key, value, call_s, return_s)
        if kind is not Kind.GET and choose.random() < open_share:
            operation = operation._replace(return_s=FOREVER)
            effect_s = call_s + choose.choice([choose.expovariate(10), choose.expovariate(1), FOREVER])
        free_s[client] = return_s
        effects.append((effect_s, operation))
    return sorted(seen_in_order(effects), key=lambda operation: operation.call_s)


def with_one_stale_get(history: list[Operation], choose: random.Random) -> list[Operation]:
    """A get sees a value that had surely been overwritten before its call; needs values that are written once."""
    puts = [operation for operation in history if operation.kind is Kind.PUT and not operation.is_open]
    while True:
        place, old, new = choose.randrange(len(history)), choose.choice(puts), choose.choice(puts)
        stale = history[place]
        in_turn = old.return_s < new.call_s and new.return_s < stale.call_s
        if stale.kind is Kind.GET and stale.key == old.key == new.key and in_turn:
            return [*history[:place], stale._replace(value=old.value), *history[place + 1 :]]


RUNS = {
    "ten keys": lambda seed: recorded_run(seed, operation_count=2_000, key_count=10),
    "one key and a hundred open writes": lambda seed: recorded_run(seed, operation_count=2_000, open_share=0.1),
    "many at a time": lambda seed: recorded_run(seed, operation_count=1_000, client_count=30),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", RUNS)
def test_a_true_run_is_accepted_and_one_stale_get_in_it_found(name: str, seed: int) -> None:
    history = RUNS[name](seed)
    assert check(history, state_limit=2 * len(history)) is None, "near one state per operation"
    violation = check(with_one_stale_get(history, random.Random(seed)), state_limit=50_000)
    assert violation is not None
    assert len(violation.operations) <= 6, violation


@pytest.mark.parametrize("is_delete", [False, True], ids=["puts", "deletes"])
def test_sixty_open_writes_that_are_seen_later(is_delete: bool) -> None:
    """And one that had its effect once is not seen again, though all deletes look alike."""
    values = [None if is_delete else b"open%d" % number for number in range(60)]
    history = [
        delete(number, FOREVER) if value is None else put(value, number, FOREVER) for number, value in enumerate(values)
    ]
    for number in range(0, 60, 1 if is_delete else 2):
        at_s = 100.0 + 10 * number
        new = b"new%d" % number
        history += [put(new, at_s, at_s + 1), get(new, at_s + 2, at_s + 3), get(values[number], at_s + 4, at_s + 5)]
    assert check(history, state_limit=500) is None
    again = [put(b"last", 1000, 1001), get(b"last", 1002, 1003), get(values[0], 1004, 1005)]
    assert check([*history, *again], state_limit=500) is not None


def test_undecided_is_raised_when_the_states_are_used_up() -> None:
    history = recorded_run(0, operation_count=100)
    with pytest.raises(Undecided, match=r"on b'key0' are .* after 5 states") as caught:
        check(history, state_limit=5)
    assert (caught.value.key, caught.value.state_limit) == (b"key0", 5)


def test_a_key_that_is_surely_wrong_outweighs_one_undecided() -> None:
    history = [*recorded_run(0, operation_count=100), *REJECTED["stale read"]]
    violation = check(history, state_limit=5)
    assert violation is not None
    assert violation.key == KEY
