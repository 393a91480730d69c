"""What the files of the transport's contract share."""

from __future__ import annotations

import pytest

from raftkv.transport import MemoryNetwork
from tests.contracts.playing import Play, Scenario
from tests.transport.world import run, world


@pytest.fixture(params=["tcp on uvloop", "tcp on asyncio", "memory"])
def play(request: pytest.FixtureRequest) -> Play:
    """Plays a scenario in a world of each kind."""

    def play_in_world(scenario: Scenario) -> None:
        async def main() -> None:
            network = MemoryNetwork(is_automatic=True) if request.param == "memory" else None
            async with world(network) as made:
                await scenario(made)

        run(main, "asyncio" if request.param == "tcp on asyncio" else "uvloop")

    return play_in_world
