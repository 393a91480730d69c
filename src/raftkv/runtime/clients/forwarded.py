"""The leader's side of `forwarding`: what followers forward is proposed among its own commands, and answered.

A follower's checks are not believed: sender, size and each command are looked at before anything is proposed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from raftkv.errors import InvalidInput, OutcomeUnknown, RaftkvError
from raftkv.runtime import wire
from raftkv.runtime.clients.codec import CommandCodec
from raftkv.runtime.clients.forwarding import BATCH_MAX_COUNT
from raftkv.runtime.clients.proposals import Proposals
from raftkv.types import MemberId


class ForwardedWork:
    """Proposes what followers forward, among its own, and answers each batch once.

    `refusal_of_sender` says why batches of that sender cannot be taken now, `refusal_of_command` why a single command
    cannot. One that is refused leaves its neighbours alone: they may be other clients'.
    """

    def __init__(
        self,
        codec: CommandCodec,
        send: Callable[[MemberId, bytes], bool],
        refusal_of_sender: Callable[[MemberId], RaftkvError | None],
        refusal_of_command: Callable[[Any], RaftkvError | None],
        bytes_of: Callable[[Any], int],
        *,
        batch_max_bytes: int,
    ) -> None:
        self._codec = codec
        self._send = send
        self._refusal_of_sender = refusal_of_sender
        self._refusal_of_command = refusal_of_command
        self._bytes_of = bytes_of
        self._batch_max_bytes = batch_max_bytes

    def handle(self, sender: MemberId, request: wire.Forward, proposals: Proposals) -> None:
        """Propose the batch of `request`, or answer with a refusal. Raises `PeerProtocolError` for other bytes."""
        refusal = self._refusal_of_sender(sender)
        if refusal is not None:
            self._refuse(sender, request, refusal)
            return
        if len(request.batch) > self._batch_max_bytes:  # decoded, it could be a hundred times as large
            text = f"{len(request.batch)} bytes of forwarded writes are more than the leader's limits allow"
            self._refuse(sender, request, InvalidInput(text))
            return
        commands = self._codec.decode_batch(request.batch)
        if len(commands) > BATCH_MAX_COUNT:
            text = f"{len(commands)} forwarded writes in one batch, the most are {BATCH_MAX_COUNT}"
            self._refuse(sender, request, InvalidInput(text))
            return

        collected = _Outcomes(len(commands), lambda all_of_them: self._answer(sender, request, proposals, all_of_them))
        for position, command in enumerate(commands):
            refusal = self._refusal_of_command(command)
            if refusal is None:
                proposals.submit(command, self._bytes_of(command), functools.partial(collected.take, position))
            else:
                collected.take(position, refusal)

    def _answer(self, sender: MemberId, request: wire.Forward, proposals: Proposals, outcomes: list[Any]) -> None:
        results = [_failure_of(each) if isinstance(each, RaftkvError) else each for each in outcomes]
        has_result = any(not isinstance(each, RaftkvError) for each in outcomes)
        index = proposals.applied_index if has_result else 0  # nothing was applied that the follower could wait for
        self._send(
            sender, wire.encode(wire.ForwardReply(request.request_id, index, self._codec.encode_results(results)))
        )

    def _refuse(self, sender: MemberId, request: wire.Forward, refusal: RaftkvError) -> None:
        self._send(sender, wire.encode(wire.ForwardReply(request.request_id, 0, b"", _failure_of(refusal))))


class _Outcomes:
    """Gathers what becomes of the commands of one forwarded batch, which may be spread over several entries."""

    __slots__ = ("_missing_count", "_outcomes", "_tell")

    def __init__(self, count: int, tell: Callable[[list[Any]], None]) -> None:
        self._outcomes: list[Any] = [None] * count
        self._missing_count = count
        self._tell = tell

    def take(self, position: int, outcome: Any) -> None:
        self._outcomes[position] = outcome
        self._missing_count -= 1
        if not self._missing_count:
            self._tell(self._outcomes)


def _failure_of(error: RaftkvError) -> wire.Failure:
    return wire.Failure(type(error).__name__, str(error), isinstance(error, OutcomeUnknown))
