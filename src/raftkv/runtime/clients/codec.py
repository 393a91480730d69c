"""The key-value commands and results as the queues of this room see them: opaque, with a size and a codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from raftkv.errors import PeerProtocolError, StorageError
from raftkv.kv import Command, Put, Result, decode_batch, encode_batch
from raftkv.runtime.wire import Failure

COMMAND_OVERHEAD_BYTES = 16
"""What a command costs in a batch beside its key and value, rounded up."""

_results_encoder = msgspec.msgpack.Encoder()
_results_decoder: msgspec.msgpack.Decoder[list[Result | Failure]] = msgspec.msgpack.Decoder(list[Result | Failure])


def command_bytes(command: Command) -> int:
    """About how many bytes `command` takes in the log."""
    if type(command) is Put:
        return len(command.key) + len(command.value) + COMMAND_OVERHEAD_BYTES
    return COMMAND_OVERHEAD_BYTES + len(getattr(command, "key", b""))


def takes_space(command: Command) -> bool:
    """False for what a full disk still allows: deleting and compacting make room."""
    return type(command) is Put


class CommandCodec(Protocol):
    """How a state machine's commands and results look as bytes."""

    def encode_batch(self, commands: list[Any]) -> bytes: ...

    def decode_batch(self, data: bytes) -> list[Any]: ...

    def encode_results(self, results: Sequence[Any]) -> bytes: ...

    def decode_results(self, data: bytes) -> list[Any]: ...


class KeyValueCodec:
    """Implements `CommandCodec`; what comes from a peer is checked, not trusted."""

    def encode_batch(self, commands: list[Any]) -> bytes:
        return encode_batch(commands)

    def decode_batch(self, data: bytes) -> list[Any]:
        try:
            commands = decode_batch(data)
        except StorageError as error:
            raise PeerProtocolError(f"not a batch of commands: {error}") from error
        if not commands:
            raise PeerProtocolError("a forwarded batch holds no command")
        return list(commands)

    def encode_results(self, results: Sequence[Any]) -> bytes:
        return _results_encoder.encode(results)

    def decode_results(self, data: bytes) -> list[Any]:
        try:
            return list(_results_decoder.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerProtocolError(f"not the results of a batch: {error}") from error
