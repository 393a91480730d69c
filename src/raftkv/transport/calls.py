"""One question, one answer, over a connection of its own: for join and probe, where no peer link exists yet.

What can have happened decides the error. Until the request is written nothing can have, so every failure is
`Unavailable`; from then on a lost or late answer is `OutcomeUnknown`, because the other node may have acted.
Errors cross by class name and text. Only classes that speak about the request cross: a `StorageError` there
must not stop the node here.
"""

from __future__ import annotations

import asyncio

import msgspec

from raftkv import errors
from raftkv.errors import OutcomeUnknown, PeerProtocolError, RaftkvError, Rejected, TooLarge, Unavailable
from raftkv.transport.address import describe_os_error
from raftkv.transport.connection import FrameConnection
from raftkv.transport.contract import PeerIdentity, TransportHandler
from raftkv.transport.dialing import Dialer
from raftkv.transport.framing import FrameKind
from raftkv.transport.handshake import Purpose

_MAX_ERROR_CHARS = 2_000


class _CallError(msgspec.Struct, frozen=True, array_like=True):
    """`facts` are the error's attributes, so that `leader_address` and the like survive the journey."""

    name: str
    text: str
    facts: dict[str, str | int | float | bool] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_CallError)


def _subclasses(root: type[RaftkvError]) -> dict[str, type[RaftkvError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _subclasses(child)
    return found


def _travelling_classes() -> dict[str, type[RaftkvError]]:
    found = _subclasses(Rejected) | _subclasses(OutcomeUnknown)
    return {name: found[name] for name in found if found[name].__module__ == errors.__name__}


def encode_error(error: Rejected | OutcomeUnknown | PeerProtocolError) -> bytes:
    """What a handler answered with. What it found wrong with the request's bytes is a plain refusal to the caller."""
    cls = type(error) if type(error).__name__ in _travelling_classes() else Rejected
    if isinstance(error, OutcomeUnknown):
        cls = OutcomeUnknown
    facts = {key: value for key, value in vars(error).items() if isinstance(value, str | int | float)}
    return _encoder.encode(_CallError(cls.__name__, str(error)[:_MAX_ERROR_CHARS], facts))


def decode_error(payload: bytes) -> RaftkvError:
    """The same error as at the other node; `OutcomeUnknown` if it is of a class that this version lacks."""
    try:
        told = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return OutcomeUnknown("the other node answered with an error that cannot be read")
    cls = _travelling_classes().get(told.name, OutcomeUnknown)
    error = cls.__new__(cls)
    Exception.__init__(error, told.text)
    vars(error).update(told.facts)
    return error


class CallClient:
    """The caller's side."""

    def __init__(self, dialer: Dialer, max_call_bytes: int) -> None:
        self._dialer = dialer
        self._max_call_bytes = max_call_bytes
        self._open: set[FrameConnection] = set()

    async def call(self, identity: PeerIdentity, address: str, kind: int, payload: bytes, timeout: float) -> bytes:
        """See `PeerTransport.call`. A cancellation closes the connection and leaves the outcome unknown."""
        if len(payload) > self._max_call_bytes:
            raise TooLarge("the call", len(payload), self._max_call_bytes)
        connection: FrameConnection | None = None
        is_sent = False
        try:
            async with asyncio.timeout(timeout):
                dialed = await self._dialer.dial(address, identity, Purpose.CALL)
                connection = dialed.connection
                connection.decoder.max_payload_bytes = self._max_call_bytes
                self._open.add(connection)
                is_sent = True
                connection.send_frame(kind, payload)
                reply_kind, reply = await dialed.inbox.receive()
        except OSError as error:
            text = f"{address}: {describe_os_error(error)}"
            if is_sent:
                raise OutcomeUnknown(f"called {text}; it may have acted") from error
            raise Unavailable(f"cannot reach {text}") from error
        finally:
            if connection is not None:
                self._open.discard(connection)
                connection.close("the call is over")
        if reply_kind == FrameKind.CALL_REPLY:
            return reply
        if reply_kind == FrameKind.CALL_ERROR:
            raise decode_error(reply)
        raise OutcomeUnknown(f"called {address}: it answered with a frame of kind {reply_kind}")

    def abort(self) -> None:
        """End what is waiting for an answer; the callers get `OutcomeUnknown`."""
        for connection in tuple(self._open):
            connection.abort("this node is stopping")


async def serve_call(
    connection: FrameConnection, handler: TransportHandler, kind: int, payload: bytes, max_call_bytes: int
) -> None:
    """Answer one request and close. Runs to its end even if the caller has gone (see `TransportHandler.on_call`).

    Any other error than the three is a fault of this node: it goes on to the loop, and the caller sees the
    connection end, which it takes for an unknown outcome.
    """
    try:
        reply_kind, reply = FrameKind.CALL_REPLY, await handler.on_call(kind, payload)
        if len(reply) > max_call_bytes:
            raise OutcomeUnknown(f"the answer has {len(reply)} bytes, the limit is {max_call_bytes}")
    except (Rejected, OutcomeUnknown, PeerProtocolError) as error:
        reply_kind, reply = FrameKind.CALL_ERROR, encode_error(error)
    except BaseException:
        connection.abort("serving the call failed")
        raise
    connection.send_frame(reply_kind, reply)
    connection.close("the call is answered")
