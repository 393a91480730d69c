"""What a run of power cuts did: how many, how much was acknowledged and checked, and what was wrong."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter

LEAST_CHECKED_PER_CUT = 30
"""On average, of the cuts under load. A run below this has tested too little to say anything."""


class Moment(enum.Enum):
    """When the power failed."""

    LOAD = "under load"
    START = "while starting"
    STOP = "while stopping"


@dataclasses.dataclass(slots=True)
class Figures:
    cuts: Counter[tuple[str, Moment]] = dataclasses.field(default_factory=Counter)
    """By kind of world and moment."""
    directory_count: int = 0
    """Cuts, each counted for every data directory that it met."""
    acknowledged_count: int = 0
    checked_count: int = 0
    """Acknowledged writes whose own value was found after a cut, on all nodes; later ones have covered the others."""
    compared_count: int = 0
    """Values that were read and compared."""
    torn_count: int = 0
    """Logs that ended in half a write: they show that cuts come at the moments that matter."""
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def cut_count(self) -> int:
        return self.cuts.total()

    def count_at(self, *moments: Moment) -> int:
        return sum(count for (_, moment), count in self.cuts.items() if moment in moments)

    def add(self, other: Figures) -> None:
        self.cuts += other.cuts
        self.directory_count += other.directory_count
        self.acknowledged_count += other.acknowledged_count
        self.checked_count += other.checked_count
        self.compared_count += other.compared_count
        self.torn_count += other.torn_count
        self.problems += other.problems

    def shortage(self) -> str:
        """Why these figures say nothing, if so."""
        loaded = self.count_at(Moment.LOAD, Moment.STOP)
        if self.checked_count < LEAST_CHECKED_PER_CUT * loaded or not loaded:
            return (
                f"only {self.checked_count} acknowledged writes were checked after {loaded} cuts under load: "
                f"less than {LEAST_CHECKED_PER_CUT} a cut test nothing"
            )
        return ""

    def __str__(self) -> str:
        moments = ", ".join(f"{self.count_at(moment)} {moment.value}" for moment in Moment)
        return (
            f"{self.cut_count} cuts of {self.directory_count} directories ({moments}), "
            f"{self.acknowledged_count} writes acknowledged, {self.checked_count} of them checked, "
            f"{self.compared_count} values compared, {self.torn_count} torn log ends, {len(self.problems)} problems"
        )
