"""Configurations as the log holds them: their bytes, what makes one valid, and which one is in force.

A server uses the latest configuration in its log, committed or not (Raft §6), so truncating an entry must
bring back the one before (`ConfigurationHistory`). The history holds every configuration from the log's base
on; the first of them came with the base.
"""

from __future__ import annotations

import msgspec

from raftkv.errors import CorruptData, InvalidInput, require
from raftkv.types import Configuration, Entry, SnapshotMetadata

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """The `data` of a CONFIGURATION entry."""
    return _encoder.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """Raises `InvalidInput` for bytes that are no configuration, or one that could not be used."""
    try:
        configuration = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a configuration: {error}") from error
    problem = configuration_problem(configuration)
    if problem:
        raise InvalidInput(problem)
    return configuration


def configuration_problem(configuration: Configuration) -> str:
    """Why this may not be used; empty when it may."""
    if not configuration.voters:
        return "a configuration needs at least one voter"
    voters = [member.member_id for member in configuration.voters]
    learners = [member.member_id for member in configuration.learners]
    outgoing = [member.member_id for member in configuration.voters_outgoing]
    learners_next = [member.member_id for member in configuration.learners_next]
    for ids in (voters + learners, outgoing, learners_next):
        if len(set(ids)) != len(ids):
            return "a member stands twice in the configuration"
        if any(member_id <= 0 for member_id in ids):
            return "a member id must be a positive number"
    if set(learners) & set(outgoing):
        return "an outgoing voter cannot be a learner before the joint configuration is left"
    if not set(learners_next) <= set(outgoing) - set(voters):
        return "only an outgoing voter can become a learner when the joint configuration is left"
    return ""


class ConfigurationHistory:
    """(index, configuration), ascending; the last one is in force."""

    __slots__ = ("_items", "current", "index")

    def __init__(self, base: SnapshotMetadata, entries: list[Entry]) -> None:
        self._items = [(base.configuration_index, base.configuration)]
        for entry in entries:
            if entry.index > base.last_index:
                try:
                    self._items.append((entry.index, decode_configuration(entry.data)))
                except InvalidInput as error:
                    raise CorruptData("log", -1, f"entry {entry.index}: {error}") from error
        self.index, self.current = self._items[-1]

    def push(self, index: int, configuration: Configuration) -> None:
        require(index > self.index, "configuration at {} does not follow the one at {}", index, self.index)
        self._items.append((index, configuration))
        self.index, self.current = index, configuration

    def truncate_from(self, index: int) -> bool:
        """Roll back to the configuration before `index`; True when that changed the one in force."""
        if self.index < index or len(self._items) == 1:
            return False
        while len(self._items) > 1 and self._items[-1][0] >= index:
            self._items.pop()
        self.index, self.current = self._items[-1]
        return True

    def reset(self, snapshot: SnapshotMetadata) -> None:
        self._items = [(snapshot.configuration_index, snapshot.configuration)]
        self.index, self.current = self._items[-1]

    def compact(self, base_index: int) -> None:
        """Keep the latest at or below `base_index` and everything behind it."""
        while len(self._items) > 1 and self._items[1][0] <= base_index:
            self._items.pop(0)

    def at(self, index: int) -> tuple[int, Configuration]:
        """The latest at or below `index`, with its own index."""
        for item in reversed(self._items):
            if item[0] <= index:
                return item
        return self._items[0]

    def items(self) -> list[tuple[int, Configuration]]:
        return list(self._items)
