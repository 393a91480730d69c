"""What happened, in order: for people, for pictures, and to compare two runs byte for byte."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from raftkv.sim.world import World


class Event(NamedTuple):
    """`node` is empty for what concerns the whole cluster, such as a fault of the network."""

    at_s: float
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:12.6f} {self.node or '-':8} {self.text}"


class Frame(NamedTuple):
    """`arrives_s` is infinite for one that was lost."""

    sent_s: float
    arrives_s: float
    sender: str
    recipient: str
    what: str


class Trace:
    """Events of note are kept; frames go into the digest, and are kept only while `frames` is a list."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._digest = hashlib.blake2b(digest_size=16)
        self.events: list[Event] = []
        self.frames: list[Frame] | None = None

    def event(self, node: str, text: str) -> None:
        self.events.append(Event(self._world.now_s, node, text))
        self._digest.update(f"{self._world.now_s!r} {node} {text}\n".encode())

    def frame(self, link: tuple[str, str], payload: bytes) -> None:
        self._digest.update(f"{self._world.now_s!r} {link[0]}>{link[1]} ".encode())
        self._digest.update(payload)

    def keep_frame(self, link: tuple[str, str], arrives_s: float, what: str) -> None:
        if self.frames is not None:
            self.frames.append(Frame(self._world.now_s, arrives_s, *link, what))

    def digest(self) -> str:
        return self._digest.hexdigest()
