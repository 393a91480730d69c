"""Talks to a cluster over HTTP: `AsyncClient` for asyncio, `Client` for everything else.

Must never send a write twice unless the first try surely did not happen: an unknown outcome is told to the
caller as `OutcomeUnknown`, and repeating the write is the caller's decision.

May use: types, errors. Public names are those in `__all__`.
"""

from raftkv.client.asynchronous import AsyncClient
from raftkv.client.replies import GetResult, JoinResult, MemberInfo, Position
from raftkv.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "GetResult", "JoinResult", "MemberInfo", "Position"]
