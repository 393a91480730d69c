"""What a network between nodes can be made to do, whichever kind it is: `proxy` works everywhere, `namespaces` as root.

Traffic from one node to another travels on a *road*, the ordered pair. Each road is in some condition at any time.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias

Road: TypeAlias = tuple[str, str]
"""From one node to another, by name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """What a road does to what is on it; as it is made here, nothing.

    is_held: nothing arrives until the road is open again, and nobody is told.
    is_refused: connections cannot be made along this road, and those that were are of no use.
    delay_s: everything takes at least the first, and at most the second of these.
    """

    is_held: bool = False
    is_refused: bool = False
    delay_s: tuple[float, float] = (0.0, 0.0)


OPEN = Condition()
HELD = Condition(is_held=True)
REFUSED = Condition(is_refused=True)


class Place(NamedTuple):
    """Where a node is to be found, and the settings that bring it there."""

    http_address: str
    raft_address: str
    settings: Mapping[str, object]


class Network(Protocol):
    """The methods may be called from any thread; what they ask for is so when they return."""

    failures: list[BaseException]
    """Errors of the network itself; a run with any is worth nothing."""
    can_delay: bool

    @property
    def counts(self) -> Counter[str]:
        """What really happened to traffic from the beginning: "held", "refused", "delayed", and connections "cut"."""
        ...

    def place(self, node_id: str, http_port: int, raft_port: int) -> Place: ...

    def inside(self, node_id: str) -> AbstractContextManager[None]:
        """Where this thread has to be to start the process of a node."""
        ...

    def impose(self, conditions: Mapping[Road, Condition]) -> None:
        """The conditions of all roads; one that is not named is open."""
        ...

    def heal(self) -> None:
        """All roads are open."""
        ...

    def cut(self, roads: Iterable[Road], *, is_torn: bool) -> None:
        """End the connections that were dialled along `roads`: at once or, where that can be, in the middle of data."""
        ...

    def close(self) -> None: ...
