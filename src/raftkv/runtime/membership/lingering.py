"""Whom to stay connected to: the members of the configuration, and for a while some that are not in it.

A removed server has to hear of its removal, or it will campaign again and again (hashicorp/raft#524); so the
connection outlives the membership by `LINGER_S`. And a server that was away may be addressed by a leader that its own
configuration does not know yet; it must be able to answer, or it would never catch up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raftkv.types import Configuration, MemberId

LINGER_S = 10.0
ACQUAINTANCE_S = 60.0
ACQUAINTANCES_MAX_COUNT = 16


class LingeringPeers:
    def __init__(self, set_peers: Callable[[Mapping[MemberId, str]], None], now: Callable[[], float]) -> None:
        self._set_peers = set_peers
        self._now = now
        self._current: dict[MemberId, str] = {}
        self._others: dict[MemberId, tuple[str, float]] = {}

    def update(self, configuration: Configuration, own: MemberId) -> None:
        """The configuration in force has changed."""
        members = {i: m.raft_address for i, m in configuration.members().items() if i != own and m.raft_address}
        until_s = self._now() + LINGER_S
        for member_id, address in self._current.items():
            if member_id not in members:
                self._others[member_id] = (address, until_s)
        for member_id in members:
            self._others.pop(member_id, None)
        self._current = members
        self._tell()

    def meet(self, member_id: MemberId, address: str) -> None:
        """A member of this cluster has connected to this node; answer it, whether or not it is known here."""
        if member_id in self._current or not address:
            return
        if member_id not in self._others and len(self._others) >= ACQUAINTANCES_MAX_COUNT:
            return
        known = self._others.get(member_id)
        self._others[member_id] = (address, self._now() + ACQUAINTANCE_S)
        if known is None or known[0] != address:
            self._tell()

    def expire(self) -> None:
        """Called every tick."""
        if not self._others:
            return
        now_s = self._now()
        late = [member_id for member_id, (_, until_s) in self._others.items() if until_s <= now_s]
        for member_id in late:
            del self._others[member_id]
        if late:
            self._tell()

    def _tell(self) -> None:
        departed = {member_id: address for member_id, (address, _) in self._others.items()}
        self._set_peers({**departed, **self._current})
