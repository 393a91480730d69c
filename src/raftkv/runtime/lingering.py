"""Whom to stay connected to: the members of the configuration, and for a while those that just left it.

A removed server has to hear of its removal, or it will campaign again and again (hashicorp/raft#524); so
the connection outlives the membership by `LINGER_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raftkv.types import Configuration, MemberId

LINGER_S = 10.0


class LingeringPeers:
    def __init__(self, set_peers: Callable[[Mapping[MemberId, str]], None], now: Callable[[], float]) -> None:
        self._set_peers = set_peers
        self._now = now
        self._current: dict[MemberId, str] = {}
        self._departed: dict[MemberId, tuple[str, float]] = {}

    def update(self, configuration: Configuration, own: MemberId) -> None:
        """The configuration in force has changed."""
        members = {i: m.raft_address for i, m in configuration.members().items() if i != own and m.raft_address}
        until_s = self._now() + LINGER_S
        for member_id, address in self._current.items():
            if member_id not in members:
                self._departed[member_id] = (address, until_s)
        for member_id in members:
            self._departed.pop(member_id, None)
        self._current = members
        self._tell()

    def expire(self) -> None:
        """Called every tick."""
        if not self._departed:
            return
        now_s = self._now()
        late = [member_id for member_id, (_, until_s) in self._departed.items() if until_s <= now_s]
        for member_id in late:
            del self._departed[member_id]
        if late:
            self._tell()

    def _tell(self) -> None:
        departed = {member_id: address for member_id, (address, _) in self._departed.items()}
        self._set_peers({**departed, **self._current})
