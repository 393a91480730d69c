"""The key-value state: etcd's data model over any ordered store.

Every command that changes something takes the next revision; old revisions stay readable until they are
compacted. Pure: no clock, no randomness, no disk, no thread, no `async`; the same entries give the same state on
every member, byte for byte as `state_hash` sees it. May use `types`, `errors` and the interfaces of `statemachine`.
"""

from raftkv.kv.commands import Command, Compact, Delete, Put, decode_batch, encode_batch
from raftkv.kv.machine import KeyValueMachine
from raftkv.kv.results import CompactResult, DeleteResult, KeyValue, PutResult, RangeResult, Result

__all__ = [
    "Command",
    "Compact",
    "CompactResult",
    "Delete",
    "DeleteResult",
    "KeyValue",
    "KeyValueMachine",
    "Put",
    "PutResult",
    "RangeResult",
    "Result",
    "decode_batch",
    "encode_batch",
]
