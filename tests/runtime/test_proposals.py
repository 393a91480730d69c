"""Group commit: who shares a batch with whom, what bounds it, and that every command ends in one of three ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftkv.errors import InvariantViolation, NoLeader, NotLeader, OutcomeUnknown, Overloaded, ShuttingDown
from raftkv.runtime.clients.gathering import IDLE_PASSES_MAX, PASSES_MAX, WAIT_MAX_S
from raftkv.runtime.clients.proposals import WINDOW_STEP_S, Proposals
from raftkv.types import Entry, EntryKind

TIMEOUT_S = 5.0


class World:
    """The log of a leader, which takes batches at ascending indexes, a clock, and the queue between them."""

    def __init__(self, pending_max_bytes: int = 1 << 20, **limits: int) -> None:
        self.now_s = 0.0
        self.term = 1
        self.next_index = 1
        self.refusal: Exception | None = None
        self.batches: list[str] = []
        self.wake_count = 0
        self.told: dict[str, Any] = {}
        self.proposals = Proposals(
            self,
            lambda commands: ",".join(commands).encode(),
            self._wake,
            lambda: self.now_s,
            timeout_s=TIMEOUT_S,
            pending_max_bytes=pending_max_bytes,
            **limits,
        )

    def propose(self, data: bytes) -> tuple[int, int]:
        if self.refusal is not None:
            raise self.refusal
        self.batches.append(data.decode())
        self.next_index += 1
        return self.next_index - 1, self.term

    def _wake(self) -> None:
        self.wake_count += 1

    def flush(self) -> bool:
        """Turns, one after the other, until the batch has left or none is asked for any more."""
        while True:
            wake_count = self.wake_count
            if self.proposals.flush():
                return True
            if self.wake_count == wake_count:
                return False

    def submit(self, *commands: str, size: int = 1) -> None:
        for command in commands:
            self.proposals.submit(command, size, self.done(command))

    def done(self, command: str) -> Callable[[Any], None]:
        def done(outcome: Any) -> None:
            assert command not in self.told, f"{command} was answered twice"
            self.told[command] = outcome

        return done

    def apply(self, index: int, *results: str, term: int = 1) -> None:
        kind = EntryKind.COMMANDS if results else EntryKind.NOOP
        self.proposals.applied(Entry(index, term, kind), results)

    def kinds(self) -> dict[str, type]:
        return {command: type(outcome) for command, outcome in self.told.items()}


# ---- Batches


def test_commands_that_come_together_share_an_entry() -> None:
    world = World()
    world.submit("a", "b", "c")
    assert world.wake_count == 1
    assert world.flush()
    assert world.batches == ["a,b,c"]
    world.apply(1, "A", "B", "C")
    assert world.told == {"a": "A", "b": "B", "c": "C"}
    assert world.proposals.pending_bytes == 0
    assert world.proposals.pending_count == 0


def test_what_comes_while_a_batch_is_under_way_becomes_the_next() -> None:
    world = World()
    world.submit("a")
    world.flush()
    world.submit("b", "c")
    assert not world.flush()
    assert world.proposals.has_waiting
    world.apply(1, "A")
    assert world.flush()
    assert world.batches == ["a", "b,c"]


def test_a_batch_waits_a_moment_for_the_clients_that_were_just_answered() -> None:
    """Two half batches cost nearly twice as much as one whole."""
    world = World()
    world.submit("a1", "b1", "c1")
    world.flush()
    world.apply(1, "A", "B", "C")
    world.submit("a2")
    assert not world.proposals.flush()
    world.submit("b2")
    assert not world.proposals.flush()
    world.submit("c2")
    assert world.proposals.flush()
    assert world.batches == ["a1,b1,c1", "a2,b2,c2"]


def test_a_batch_waits_for_those_that_come_no_more_only_while_others_come() -> None:
    world = World()
    world.submit("a1", "b1", "c1")
    world.flush()
    world.apply(1, "A", "B", "C")
    world.submit("a2")
    wake_count = world.wake_count
    assert world.flush()
    assert world.wake_count - wake_count == 1 + IDLE_PASSES_MAX
    assert world.batches[-1] == "a2"
    world.apply(2, "A")
    world.submit("a3")
    assert world.proposals.flush(), "a lone client waits for nobody"


def test_commands_that_trickle_in_do_not_hold_up_the_first_of_them_for_long() -> None:
    world = World()
    world.submit(*(f"first{number}" for number in range(100)))
    world.flush()
    world.apply(1, *["ok"] * 100)
    passes = 0
    world.submit("second0")
    while not world.proposals.flush():
        passes += 1
        world.submit(f"second{passes}")
    assert passes == PASSES_MAX


def test_nothing_is_waited_for_when_the_loop_has_much_else_to_do() -> None:
    """A pass may take long: reads of large values by many clients."""
    world = World()
    world.submit(*(f"first{number}" for number in range(100)))
    world.flush()
    world.apply(1, *["ok"] * 100)
    world.submit("second0")
    assert not world.proposals.flush()
    world.now_s += WAIT_MAX_S
    world.submit("second1")
    assert world.proposals.flush()


def test_nothing_is_waited_for_while_a_full_batch_waits() -> None:
    world = World(batch_max_count=2)
    world.submit("a1", "b1", "c1", "d1", "e1")
    for index in (1, 2):
        world.flush()
        world.apply(index, "ok", "ok")
    world.submit("a2", "b2")
    assert world.proposals.flush()
    assert world.batches[-1] == "e1,a2"


def test_the_window_opens_when_batches_take_their_time_and_closes_again() -> None:
    """With a slow disk or network one batch at a time would leave both idle."""
    world = World(window_max_count=3)
    for round_number in range(40):
        world.submit(f"slow{round_number}")
        world.flush()
        world.now_s += 10 * WINDOW_STEP_S
        world.apply(world.next_index - 1, "ok")
    for command in ("a", "b", "c", "d"):
        world.submit(command)
        world.flush()
    assert world.batches[-3:] == ["a", "b", "c"]
    first = world.next_index - 3
    for index, result in zip(range(first, first + 3), "ABC", strict=True):
        world.apply(index, result)
    for round_number in range(80):
        world.flush()
        world.apply(world.next_index - 1, "ok")
        world.submit(f"quick{round_number}")
    world.flush()
    world.submit("e")
    assert not world.flush()


def test_a_batch_is_bounded_in_commands_and_in_bytes() -> None:
    world = World(batch_max_count=2, batch_max_bytes=10)
    world.submit("a", "b", "c")
    world.submit("large", size=9)
    world.submit("d", size=2)
    for index in range(1, 4):
        world.flush()
        world.apply(index, *(["ok"] * len(world.batches[-1].split(","))))
    assert world.batches == ["a,b", "c,large", "d"]
    assert len(world.told) == 5


def test_a_command_larger_than_a_batch_travels_alone() -> None:
    world = World(batch_max_bytes=10)
    world.submit("huge", size=1000)
    world.submit("b")
    world.flush()
    world.apply(1, "HUGE")
    world.flush()
    assert world.batches == ["huge", "b"]


# ---- The bound


def test_more_bytes_than_may_wait_are_refused_and_nothing_of_them_is_queued() -> None:
    world = World(pending_max_bytes=10)
    world.submit("a", size=6)
    world.submit("b", size=5)
    world.submit("c", size=4)
    assert world.kinds() == {"b": Overloaded}
    assert world.proposals.pending_bytes == 10
    world.flush()
    assert world.batches == ["a,c"]
    world.submit("d")
    assert world.kinds() == {"b": Overloaded, "d": Overloaded}, "what is in flight counts too"
    world.apply(1, "A", "C")
    world.submit("e", size=10)
    assert world.proposals.pending_bytes == 10


def test_one_command_above_the_bound_is_taken_when_nothing_else_is_there() -> None:
    """Else a node with small limits would refuse it for ever."""
    world = World(pending_max_bytes=10)
    world.submit("huge", size=50)
    assert world.told == {}
    world.submit("a")
    assert world.kinds() == {"a": Overloaded}


# ---- The three endings


def test_an_entry_of_another_term_at_its_index_means_surely_not_applied() -> None:
    world = World()
    world.submit("a", "b")
    world.flush()
    world.apply(1, "other", "commands", term=2)
    assert world.kinds() == {"a": NoLeader, "b": NoLeader}
    assert world.proposals.pending_bytes == 0


def test_the_no_op_of_the_next_leader_at_its_index_means_surely_not_applied() -> None:
    world = World()
    world.submit("a")
    world.flush()
    world.apply(1, term=2)
    assert world.kinds() == {"a": NoLeader}


def test_a_write_that_a_new_leader_carries_to_its_end_is_a_success() -> None:
    """Leadership was lost while it was in flight, but the entry itself was committed."""
    world = World()
    world.submit("a")
    world.flush()
    world.proposals.leadership_lost()
    assert world.told == {}
    world.apply(1, "A")
    assert world.told == {"a": "A"}


def test_what_was_never_proposed_is_refused_when_leadership_is_lost() -> None:
    world = World()
    world.submit("a")
    world.flush()
    world.submit("b")
    world.proposals.leadership_lost()
    assert world.kinds() == {"b": NoLeader}
    assert world.proposals.pending_count == 1


def lead_again(world: World, *, term: int, next_index: int) -> None:
    """Another leader truncated this node's log, and was voted out for it in turn."""
    world.proposals.leadership_lost()
    world.term, world.next_index = term, next_index


def test_a_leader_again_that_lost_the_entry_waits_for_what_is_committed_in_its_place() -> None:
    world = World()
    world.submit("a")
    world.flush()
    lead_again(world, term=3, next_index=1)
    world.submit("b")
    world.flush()
    assert world.told == {}
    world.apply(1, "B", term=3)
    assert world.told["b"] == "B"
    assert world.kinds()["a"] is NoLeader
    assert world.proposals.pending_bytes == 0


def test_an_entry_that_its_proposer_lost_may_still_be_committed_by_somebody_who_kept_it() -> None:
    """Of five (Raft §5.4.2, figure 8):

    1. "a" is proposed at 1 in term 1 and reaches one follower;
    2. a leader of term 2, elected by the others, truncates it here;
    3. this node leads term 3 and gives 1 to "b", which reaches nobody;
    4. the follower that kept "a" is elected in term 4 by two that have neither, and commits it.
    """
    world = World()
    world.submit("a")
    world.flush()
    lead_again(world, term=3, next_index=1)
    world.submit("b")
    world.flush()
    world.proposals.leadership_lost()
    assert world.proposals.has_inflight, "the results are wanted"
    world.apply(1, "A", term=1)
    assert world.told["a"] == "A"
    assert world.kinds()["b"] is NoLeader


def test_what_is_adrift_does_not_hold_up_the_writes_of_the_next_leadership() -> None:
    world = World()
    world.submit("a")
    world.flush()
    world.next_index = 7
    world.apply(1, "A")
    world.submit("lost")
    world.flush()
    lead_again(world, term=3, next_index=5)
    world.submit("b")
    assert world.flush(), "the window is that of one batch"
    world.apply(5, "B", term=3)
    assert world.told == {"a": "A", "b": "B"}
    assert world.proposals.pending_count == 1
    world.now_s = TIMEOUT_S
    world.proposals.expire()
    assert world.kinds()["lost"] is OutcomeUnknown
    assert world.proposals.pending_bytes == 0


def test_closing_answers_what_is_adrift() -> None:
    world = World()
    world.submit("a")
    world.flush()
    world.proposals.leadership_lost()
    world.proposals.close()
    assert world.kinds() == {"a": OutcomeUnknown}


@pytest.mark.parametrize("refusal", [NotLeader(), NoLeader("none"), Overloaded("full")])
def test_what_the_core_rejects_is_told_as_it_is(refusal: Exception) -> None:
    world = World(batch_max_count=1)
    world.refusal = refusal
    world.submit("a", "b")
    assert not world.flush()
    assert world.told == {"a": refusal, "b": refusal}
    assert world.proposals.pending_bytes == 0


def test_a_bug_of_the_core_is_no_refusal() -> None:
    world = World()
    world.refusal = InvariantViolation("a bug")
    world.submit("a")
    with pytest.raises(InvariantViolation):
        world.flush()
    assert world.kinds() == {"a": OutcomeUnknown}


def test_in_time_or_refused_or_unknown() -> None:
    world = World()
    world.submit("proposed")
    world.flush()
    world.submit("waiting")
    world.now_s = TIMEOUT_S - 0.001
    world.proposals.expire()
    assert world.told == {}
    world.now_s = TIMEOUT_S
    world.proposals.expire()
    assert world.kinds() == {"proposed": OutcomeUnknown, "waiting": Overloaded}
    assert world.proposals.pending_bytes == 0
    world.apply(1, "too late")
    assert world.kinds()["proposed"] is OutcomeUnknown


def test_closing_answers_everybody_and_takes_no_more() -> None:
    world = World()
    world.submit("proposed")
    world.flush()
    world.submit("waiting")
    world.proposals.close()
    world.proposals.close()
    world.submit("later")
    assert world.kinds() == {"proposed": OutcomeUnknown, "waiting": ShuttingDown, "later": ShuttingDown}
    assert world.proposals.pending_bytes == 0


def test_an_entry_that_is_not_ours_answers_nobody() -> None:
    world = World()
    world.apply(1, "somebody", "else's")
    assert world.told == {}


def test_the_next_write_may_come_from_within_an_answer() -> None:
    """A client on a kept connection sends again as soon as it is answered."""
    world = World()

    def again(outcome: Any) -> None:
        world.told["first"] = outcome
        world.submit("second")

    world.proposals.submit("first", 1, again)
    world.flush()
    world.apply(1, "A")
    world.flush()
    world.apply(2, "B")
    assert world.told == {"first": "A", "second": "B"}
