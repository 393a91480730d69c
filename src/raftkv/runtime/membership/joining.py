"""How a node finds its cluster when it starts.

| its directory | its settings      | what it does                                                       |
| ---           | ---               | ---                                                                |
| has a cluster | any               | takes part; tells the leader if its own addresses have changed     |
| blank in one  | names others      | was being joined when it stopped: asks again, until it is a voter  |
| fresh         | none              | bootstraps a cluster of one, ready to be joined to another         |
| fresh         | `join`            | stays blank and asks the given members to join it, until one does  |
| fresh         | `initial_cluster` | the first listed bootstraps, unless another one has a cluster; the |
|               |                   | others join                                                        |

A fresh first node asks the others before it bootstraps, because its disk may have been wiped while the cluster
lives on: a second cluster of the same name would then be born beside it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from raftkv.errors import MembershipRefused, RaftkvError

if TYPE_CHECKING:
    from raftkv.runtime.node import Node

_log = logging.getLogger("raftkv.joining")

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


class Joining:
    """One start of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._settings = node.settings
        own_id = self._settings.node_id
        self._others = [m.raft_address for m in self._settings.initial_cluster if m.node_id != own_id]
        listed = self._settings.initial_cluster
        self._is_first = bool(listed) and listed[0].node_id == own_id

    async def should_bootstrap(self) -> bool:
        """What a fresh node decides before it does anything else.

        The first of an `initial_cluster` waits until a majority of the list, itself included, can say that none of them
        has a cluster: one that cannot be reached may well have one.
        """
        if self._is_first:
            return not await self._finds_a_cluster()
        return not self._settings.join and not self._settings.initial_cluster

    async def run(self) -> None:
        """In the background, once the node takes part."""
        replica = self._node.replica
        is_member = replica.own.member_id in replica.configuration.members()
        if not is_member and replica.log.last_index == 0:
            await self._join_through([*self._settings.join, *self._others])
        else:
            await self._announce_new_addresses()

    async def _finds_a_cluster(self) -> bool:
        delay_s = RETRY_FIRST_S
        needed_count = (len(self._others) + 1) // 2
        while True:
            counts = [await self._member_count(address) for address in self._others]
            if any(counts):
                return True
            if len(counts) - counts.count(None) >= needed_count:
                return False
            _log.info("waiting for other nodes of initial_cluster", extra={"silent": counts.count(None)})
            await asyncio.sleep(delay_s * random.uniform(0.7, 1.3))
            delay_s = min(2 * delay_s, RETRY_MOST_S)

    async def _member_count(self, address: str) -> int | None:
        """Of the cluster of the node at `address`; None when it does not answer."""
        try:
            return (await self._node.calls.probe(address)).member_count
        except RaftkvError:
            return None

    async def _join_through(self, addresses: list[str]) -> None:
        delay_s = RETRY_FIRST_S
        while addresses:
            for address in addresses:
                if await self._tries(address):
                    return
            await asyncio.sleep(delay_s * random.uniform(0.7, 1.3))
            delay_s = min(2 * delay_s, RETRY_MOST_S)

    async def _tries(self, address: str) -> bool:
        own = self._node.replica.own
        try:
            reply = await self._node.calls.join_through(address, own)
        except MembershipRefused as error:
            _log.error("join refused: %s", error, extra={"through": address})
            return False
        except RaftkvError as error:
            _log.info("join not possible yet: %s", error, extra={"through": address})
            return False
        if not reply.is_complete:
            # Perhaps not even a learner, if leadership has moved; asking again does no harm.
            _log.info("not a voter yet: %s", reply.progress, extra={"through": address})
        return reply.is_complete

    async def _announce_new_addresses(self) -> None:
        """A member that moved asks to have its new addresses written down (rqlite#818)."""
        own = self._node.replica.own
        known = self._node.replica.configuration.members().get(own.member_id)
        if known is None or known == own:
            return
        others = [m for m in self._node.replica.configuration.members().values() if m.member_id != own.member_id]
        if not others:
            await self._rename_alone()
            return
        await self._join_through([m.raft_address for m in others])

    async def _rename_alone(self) -> None:
        while True:
            try:
                await self._node.join(self._settings.node_id, self._node.replica.own.raft_address)
            except RaftkvError:
                await asyncio.sleep(RETRY_FIRST_S)
            else:
                return
