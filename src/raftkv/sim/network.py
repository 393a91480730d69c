"""The network between simulated nodes: delay, loss, duplication, reordering, cut links.

Raft's frames may be lost, doubled and reordered, which is more than TCP would do: the algorithm is made for it. All
other frames (forwarded commands) are lost or come once and in order, because their meaning relies on the transport's
connections. Frames between different clusters are refused, as the transport's handshake does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from raftkv.runtime import wire
from raftkv.sim.world import World
from raftkv.types import MemberId

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode


@dataclasses.dataclass
class Weather:
    """What links do to frames; probabilities are of each frame. May be changed at any time."""

    delay_median_s: float = 0.002
    delay_spread: float = 0.4
    """Sigma of the logarithm."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Share of frames that take up to a hundred times as long."""


class Network:
    """Nodes by name; a link is a pair of names, one direction."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random("network")
        self.weather = Weather()
        self.nodes: dict[str, SimNode] = {}
        self._cut: dict[tuple[str, str], int] = {}
        self._last_arrival_s: dict[tuple[str, str], float] = {}
        self.sent_count = 0
        self.lost_count = 0

    def cut(self, sender: str, recipient: str) -> None:
        """Cuts add up: each needs its own `mend`."""
        self._cut[sender, recipient] = self._cut.get((sender, recipient), 0) + 1

    def mend(self, sender: str, recipient: str) -> None:
        left = self._cut.get((sender, recipient), 0) - 1
        if left > 0:
            self._cut[sender, recipient] = left
        else:
            self._cut.pop((sender, recipient), None)

    def mend_all(self) -> None:
        self._cut.clear()
        self.weather = Weather()

    def is_cut(self, sender: str, recipient: str) -> bool:
        return (sender, recipient) in self._cut

    def delay_s(self) -> float:
        weather = self.weather
        delay_s = weather.delay_median_s * self._random.lognormvariate(0.0, weather.delay_spread)
        if weather.reordering and self._random.random() < weather.reordering:
            delay_s *= self._random.uniform(1, 100)
        return delay_s

    def node_of(self, member_id: MemberId) -> SimNode | None:
        """The node that has that identity now."""
        for node in self.nodes.values():
            if node.member.member_id == member_id:
                return node
        return None

    def send(self, sender: SimNode, member_id: MemberId, kind: int, payload: bytes) -> None:
        self.sent_count += 1
        recipient = self.node_of(member_id)
        if recipient is None or not recipient.is_listening:
            self._world.call_later(self.delay_s(), sender.told_unreachable, sender.life, member_id)
            return
        weather, source = self.weather, self._random
        link = sender.node_id, recipient.node_id
        trace = sender.cluster.trace
        trace.frame(link, payload)
        if link in self._cut or (weather.loss and source.random() < weather.loss):
            self.lost_count += 1
            trace.keep_frame(link, math.inf, sender.sending)
            return
        arrives_s = self._world.now_s + self.delay_s()
        trace.keep_frame(link, arrives_s, sender.sending)
        arguments = (link, sender.member.member_id, sender.cluster_id, recipient, recipient.life, kind, payload)
        if kind != wire.FrameKind.RAFT:
            arrives_s = max(arrives_s, self._last_arrival_s.get(link, 0.0))
            self._last_arrival_s[link] = arrives_s
        elif weather.duplication and source.random() < weather.duplication:
            self._world.call_later(self.delay_s() * source.uniform(1, 20), self._arrive, *arguments)
        self._world.call_at(arrives_s, self._arrive, *arguments)

    def _arrive(
        self,
        link: tuple[str, str],
        sender_id: MemberId,
        cluster_id: int,
        recipient: SimNode,
        life: int,
        kind: int,
        payload: bytes,
    ) -> None:
        if link in self._cut or recipient.life != life or recipient.cluster_id != cluster_id:
            self.lost_count += 1
            return
        recipient.receive_frame(sender_id, kind, payload)

    def later(self, work: Callable[..., None], *arguments: object) -> None:
        """One trip over the network."""
        self._world.call_later(self.delay_s(), work, *arguments)
