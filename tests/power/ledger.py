"""What a store may hold after a power cut, by what its clients were told.

Each operation on a key has a number, from 1 upwards, and the number alone says what it is: a put of a value that can be
computed again, or a delete. So a key needs two numbers: the operation that was last *settled* (acknowledged, or seen
in a read), and one *in doubt*, sent after it and never answered. After a cut the key must be as one of the
two left it; anything else is lost (an older operation) or came from nowhere. A key in doubt is left alone until
it was looked at, so that there is never a second one.
"""

from __future__ import annotations

import dataclasses
import random
import threading

_SIZES = ((0.7, 20, 400), (0.9, 400, 8_000), (0.995, 8_000, 60_000), (1.0, 260_000, 400_000))
"""(up to this share, least, most) characters of a value. The last are bursts that a thread writes, not the loop."""


def content(name: str, number: int) -> str | None:
    """What operation `number` leaves under the key `name`; None when it deletes."""
    if number == 0:
        return None
    dice = random.Random(f"{name} {number}")
    if dice.random() < 0.1:
        return None
    share = dice.random()
    least, most = next((least, most) for up_to, least, most in _SIZES if share <= up_to)
    start = f"{name} {number} "
    size = dice.randint(least, most)
    return (start * (size // len(start) + 1))[: max(size, len(start))]


@dataclasses.dataclass(slots=True)
class Key:
    """One key, with one writer at a time."""

    name: str
    settled: int = 0
    in_doubt: int = 0
    """0: nothing is."""
    is_changed: bool = False
    """It was used since it was last checked."""
    is_acknowledged: bool = False
    """`settled` was acknowledged since it was last checked."""
    _last: int = 0

    def send(self) -> str | None:
        """Begin the next operation, whose outcome is not known yet; what it leaves. A rejected one's number is not
        used again, so that it would be known if it took effect all the same.
        """
        self._last += 1
        self.in_doubt = self._last
        self.is_changed = True
        return content(self.name, self.in_doubt)

    def acknowledge(self) -> None:
        self.settled, self.in_doubt = self.in_doubt, 0
        self.is_acknowledged = True

    def reject(self) -> None:
        """It was surely not done."""
        self.in_doubt = 0

    def look(self, found: str | None) -> str:
        """Settle the key as it was found; what is wrong with that, or nothing."""
        problem = ""
        if self.in_doubt and found == content(self.name, self.in_doubt):
            self.settled = self.in_doubt
        elif found != content(self.name, self.settled):
            problem = self._describe(found)
        self.in_doubt = 0
        return problem

    def _describe(self, found: str | None) -> str:
        doubt = f", perhaps {self.in_doubt}" if self.in_doubt else ""
        told = "acknowledged" if self.is_acknowledged else "known"
        older = next((n for n in range(self._last, -1, -1) if found == content(self.name, n)), None)
        what = "something that was never stored" if older is None else f"operation {older}"
        text = "nothing" if found is None else f"{found[:60]!r}, {len(found)} characters"
        return f"{self.name}: operation {self.settled} was {told}{doubt}, but it has {what} ({text})"


class Ledger:
    """The keys of one store, each of one client."""

    def __init__(self, name: str, client_count: int, keys_per_client: int = 250) -> None:
        self.keys_of_client = [
            [Key(f"{name}-{client}-{number}") for number in range(keys_per_client)] for client in range(client_count)
        ]
        self.acknowledged_count = 0
        self.highest_revision = 0
        """Of all that was acknowledged: a store that has everything is there, or further."""
        self._lock = threading.Lock()

    def note(self, revision: int) -> None:
        """One more write was acknowledged, at `revision`. From any client's thread."""
        with self._lock:
            self.acknowledged_count += 1
            self.highest_revision = max(self.highest_revision, revision)

    def keys(self, *, only_changed: bool) -> list[Key]:
        return [key for keys in self.keys_of_client for key in keys if key.is_changed or not only_changed]
