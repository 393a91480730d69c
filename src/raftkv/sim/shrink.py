"""From a failing run to a small one that fails alike: fewer faults, fewer clients, fewer nodes, a shorter time.

Delta debugging (Zeller, Hildebrandt 2002) on the list of faults. Each candidate is a whole run from the same seed, so
what is left is not a part of the first run but a plan of its own, which fails by itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from raftkv.sim.faults import Fault
from raftkv.sim.run import Outcome, Plan, run

_PARTICULARS = re.compile(r"\bn\d+\b|[0-9a-f]{8,}|[0-9.]+|b?'[^']*'")


def kind_of(text: str) -> str:
    """What a violation is about, without the numbers and names of one run."""
    return _PARTICULARS.sub("#", text.partition("\n")[0])[:60]


def shrink(
    outcome: Outcome, *, run_max_count: int = 150, told: Callable[[int, Plan], None] = lambda _count, _plan: None
) -> Outcome:
    """The smallest run found that ends in a violation of the same kind; `told(runs, plan)` after each step forward."""
    if outcome.violation is None:
        raise ValueError("a run without a violation cannot be shrunk")
    wanted = kind_of(outcome.violation.text)
    search = _Search(outcome, wanted, run_max_count, told)
    search.try_plan(_with_faults(outcome, outcome.plan.planned_faults()))
    search.shorten()
    search.drop_faults()
    search.shorten()
    for change in ({"client_count": 1}, {"client_count": 2}, {"lease_share": 0.0}):
        search.try_plan(dataclasses.replace(search.best.plan, **change))
    search.try_plan(_without_spares(search.best.plan))
    search.drop_faults()
    return search.best


def _with_faults(outcome: Outcome, faults: Sequence[Fault]) -> Plan:
    """Only those that had happened when the violation was seen."""
    ended_s = outcome.violation.at_s if outcome.violation is not None else outcome.plan.duration_s
    return dataclasses.replace(outcome.plan, faults=tuple(fault for fault in faults if fault.at_s <= ended_s))


def _without_spares(plan: Plan) -> Plan:
    voters = {f"n{number + 1}" for number in range(plan.node_count)}
    faults = tuple(fault for fault in plan.faults or () if voters.issuperset(fault.nodes))
    return dataclasses.replace(plan, spare_count=0, faults=faults)


class _Search:
    def __init__(self, first: Outcome, wanted: str, run_max_count: int, told: Callable[[int, Plan], None]) -> None:
        self.best = first
        self._wanted = wanted
        self._left_count = run_max_count
        self._run_max_count = run_max_count
        self._told = told

    def try_plan(self, plan: Plan) -> bool:
        """True, and `best` from now on, when the plan fails alike."""
        if self._left_count == 0 or plan == self.best.plan:
            return False
        self._left_count -= 1
        outcome = run(plan)
        if outcome.violation is None or kind_of(outcome.violation.text) != self._wanted:
            return False
        self.best = outcome
        self._told(self._run_max_count - self._left_count, plan)
        return True

    def shorten(self) -> None:
        """End the clients' work right after the violation."""
        violation = self.best.violation
        if violation is not None and violation.at_s + 0.5 < self.best.plan.duration_s:
            self.try_plan(dataclasses.replace(self.best.plan, duration_s=round(violation.at_s + 0.5, 3)))

    def drop_faults(self) -> None:
        parts = 2
        while (faults := self.best.plan.faults) and parts <= 2 * len(faults):
            size = max(1, len(faults) // parts)
            for start in range(0, len(faults), size):
                fewer = faults[:start] + faults[start + size :]
                if self.try_plan(dataclasses.replace(self.best.plan, faults=fewer)):
                    break
            else:
                if size == 1:
                    return
                parts *= 2
