"""What the transport's contract is played with; the fixture `play` is in conftest.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tests.transport.world import World

Scenario: TypeAlias = Callable[[World], Awaitable[None]]
Play: TypeAlias = Callable[[Scenario], None]
