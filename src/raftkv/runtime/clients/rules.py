"""What a command must be to have come from a client: the leader asks it of each command that a peer forwards.

The follower has checked it already, where it took the request. But whoever reaches the peer port can pose as a
follower, and what stands in the log is for every member and for good: no request could name a key that is no text, and
a value that is no JSON would break whoever reads it. So this is what the client interfaces promise, asked once more in
the cheapest way; a test holds the two together. What a node proposes for its own clients is not checked again.
"""

from __future__ import annotations

import msgspec

from raftkv.errors import InvalidInput
from raftkv.kv import Command, Delete, Put

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class ClientRules:
    """The limits are the leader's own; a follower may have been given larger ones."""

    __slots__ = ("_max_key_bytes", "_max_value_bytes")

    def __init__(self, max_key_bytes: int, max_value_bytes: int) -> None:
        self._max_key_bytes = max_key_bytes
        self._max_value_bytes = max_value_bytes

    def refusal_of(self, command: Command) -> InvalidInput | None:
        """Why `command` is none that a client could have asked for; None if it may be proposed."""
        match command:
            case Put():
                reason = self._fault_of_key(command.key) or self._fault_of_value(command.value)
            case Delete():
                reason = self._fault_of_key(command.key)
            case _:
                reason = f"{type(command).__name__} is no command of a client"
        return InvalidInput(f"a forwarded write is refused: {reason}") if reason else None

    def _fault_of_key(self, key: bytes) -> str:
        if not key:
            return "its key is empty"
        if len(key) > self._max_key_bytes:
            return f"its key of {len(key)} bytes is larger than the leader's limits allow (max_key_bytes)"
        try:
            text = str(key, "utf-8")
        except UnicodeDecodeError:
            return "its key is not UTF-8"
        return "" if text.strip() == text else "its key begins or ends with white space"

    def _fault_of_value(self, value: bytes) -> str:
        if len(value) > self._max_value_bytes:
            return f"its value of {len(value)} bytes is larger than the leader's limits allow (max_value_bytes)"
        try:
            _check_json(value)
            if not value.isascii():
                str(value, "utf-8")  # msgspec leaves this unchecked inside of a Raw value
        except (ValueError, RecursionError) as error:  # msgspec.DecodeError or UnicodeDecodeError
            return f"its value is not JSON: {error}"
        return ""
