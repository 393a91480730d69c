"""What clients saw: the operations of a run, with their times, for a check that knows nothing else.

Only what a client can know is here. A write that was refused (`Rejected`) has no effect and is no operation: that it
really had none is checked apart. A write whose outcome nobody knows stays open until the end of time: it may take
effect at any later moment, or never.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple


class Kind(enum.Enum):
    PUT = "put"
    DELETE = "delete"
    GET = "get"


FOREVER = math.inf
"""`return_s` of a write with an unknown outcome."""


class Operation(NamedTuple):
    """One call of one client.

    `value` is what a put wrote or a get saw, None where there was no such key, and None for a delete. Times are seconds
    on one clock; whatever the operation did, it did between `call_s` and `return_s`, both included. A get that did not
    answer tells nothing and is not recorded.
    """

    client: str
    kind: Kind
    key: bytes
    value: bytes | None
    call_s: float
    return_s: float

    @property
    def is_open(self) -> bool:
        return self.return_s == FOREVER

    def __str__(self) -> str:
        shown = "" if self.kind is Kind.DELETE else f" {self.value!r}"
        until = "?" if self.is_open else f"{self.return_s:.6f}"
        return f"{self.client}: {self.kind.value} {self.key!r}{shown} [{self.call_s:.6f}, {until}]"
