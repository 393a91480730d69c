"""Which error is which HTTP status, gRPC code, exit code and `code` word. The only place that knows.

One row a class; a class without a row has its nearest ancestor's. A test walks the whole tree and
names every class that has no row of its own, so that a new error is a decision and not an accident.
Turned down: a status attribute on the errors. The core would then know HTTP.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from raftkv import errors
from raftkv.api import request_errors


class GrpcCode(enum.IntEnum):
    """The part of gRPC's canonical codes that is used."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class ExitCode(enum.IntEnum):
    """What the commands exit with; scripts may rely on it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    OUTCOME_UNKNOWN = 5
    REFUSED = 6
    STORAGE = 7


class Row(NamedTuple):
    http: int
    grpc: GrpcCode
    exit: ExitCode
    retry_after_s: int = 0
    """Sent as Retry-After when not 0: the same request may work then."""


_INVALID = GrpcCode.INVALID_ARGUMENT
_AGAIN = (GrpcCode.UNAVAILABLE, ExitCode.UNAVAILABLE)

TABLE: dict[type[errors.RaftkvError], Row] = {
    errors.RaftkvError: Row(500, GrpcCode.INTERNAL, ExitCode.FAILED),
    errors.Rejected: Row(400, GrpcCode.FAILED_PRECONDITION, ExitCode.FAILED),
    errors.InvalidInput: Row(400, _INVALID, ExitCode.USAGE),
    errors.SettingsError: Row(400, _INVALID, ExitCode.USAGE),
    errors.UnsupportedMediaType: Row(415, _INVALID, ExitCode.USAGE),
    errors.TooLarge: Row(413, _INVALID, ExitCode.USAGE),
    errors.KeyNotFound: Row(404, GrpcCode.NOT_FOUND, ExitCode.NOT_FOUND),
    errors.Unavailable: Row(503, *_AGAIN, 1),
    # 422 is what the reference answers; with write_mode=redirect the HTTP skin answers 307 instead.
    errors.NotLeader: Row(422, GrpcCode.FAILED_PRECONDITION, ExitCode.UNAVAILABLE),
    errors.NoLeader: Row(503, *_AGAIN, 1),
    errors.Overloaded: Row(503, GrpcCode.RESOURCE_EXHAUSTED, ExitCode.UNAVAILABLE, 1),
    errors.NotReady: Row(503, *_AGAIN, 1),
    errors.ReadTimeout: Row(504, *_AGAIN, 1),
    errors.DiskFull: Row(507, GrpcCode.RESOURCE_EXHAUSTED, ExitCode.UNAVAILABLE),
    errors.ShuttingDown: Row(503, *_AGAIN, 1),
    errors.MembershipRefused: Row(409, GrpcCode.FAILED_PRECONDITION, ExitCode.REFUSED),
    errors.ConfigurationInProgress: Row(409, GrpcCode.UNAVAILABLE, ExitCode.REFUSED, 1),
    errors.OutcomeUnknown: Row(504, GrpcCode.DEADLINE_EXCEEDED, ExitCode.OUTCOME_UNKNOWN),
    errors.StorageError: Row(500, GrpcCode.INTERNAL, ExitCode.STORAGE),
    errors.CorruptData: Row(500, GrpcCode.DATA_LOSS, ExitCode.STORAGE),
    errors.SyncFailed: Row(500, GrpcCode.INTERNAL, ExitCode.STORAGE),
    errors.DataDirectoryError: Row(500, GrpcCode.FAILED_PRECONDITION, ExitCode.STORAGE),
    errors.PeerProtocolError: Row(502, GrpcCode.INTERNAL, ExitCode.FAILED),
    errors.InvariantViolation: Row(500, GrpcCode.INTERNAL, ExitCode.FAILED),
    request_errors.MalformedRequest: Row(400, _INVALID, ExitCode.USAGE),
    request_errors.UnprocessableRequest: Row(422, _INVALID, ExitCode.USAGE),
    request_errors.UrlTooLong: Row(414, _INVALID, ExitCode.USAGE),
    request_errors.HeaderTooLarge: Row(431, _INVALID, ExitCode.USAGE),
    request_errors.RouteNotFound: Row(404, GrpcCode.UNIMPLEMENTED, ExitCode.USAGE),
    request_errors.MethodNotAllowed: Row(405, GrpcCode.UNIMPLEMENTED, ExitCode.USAGE),
    request_errors.RequestTimeout: Row(408, GrpcCode.UNAVAILABLE, ExitCode.UNAVAILABLE),
    request_errors.ExpectationFailed: Row(417, _INVALID, ExitCode.USAGE),
    request_errors.TooManyConnections: Row(503, GrpcCode.RESOURCE_EXHAUSTED, ExitCode.UNAVAILABLE, 1),
    request_errors.ProfilingOff: Row(403, GrpcCode.PERMISSION_DENIED, ExitCode.REFUSED),
}


def row_of(error: BaseException) -> Row:
    """The row of the error's class or of its nearest ancestor; anything that is not ours is a bug: 500."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return TABLE[errors.RaftkvError]


def http_status(error: BaseException) -> int:
    return row_of(error).http


def grpc_code(error: BaseException) -> GrpcCode:
    return row_of(error).grpc


def exit_code(error: BaseException) -> ExitCode:
    return row_of(error).exit


def outcome(error: BaseException) -> str:
    """`rejected` only when the request was surely not carried out; everything else must say `unknown`."""
    return "rejected" if isinstance(error, errors.Rejected) else "unknown"
