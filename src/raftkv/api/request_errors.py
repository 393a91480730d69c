"""What can be wrong with a request before a node is asked. Children of the tree in `raftkv.errors`."""

from __future__ import annotations

from raftkv.errors import InvalidInput, Rejected, TooLarge, Unavailable


class MalformedRequest(InvalidInput):
    """Not HTTP, not JSON, or not UTF-8 where it has to be."""


class UnprocessableRequest(InvalidInput):
    """Well-formed, but something is missing, empty or of the wrong type."""


class UrlTooLong(TooLarge):
    """The request target is over the limit that follows from `max_key_bytes`."""


class HeaderTooLarge(TooLarge):
    """The header lines are over `max_header_bytes`."""


class RouteNotFound(Rejected):
    """No such route."""


class MethodNotAllowed(Rejected):
    """The route exists; `allow` names its methods as the header does."""

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"method {method} is not allowed here; allowed: {allow}")
        self.allow = allow


class RequestTimeout(Rejected):
    """The request did not come in completely in time, so it was not looked at."""


class ExpectationFailed(Rejected):
    """The `Expect` header asks for something other than 100-continue."""


class TooManyConnections(Unavailable):
    """`max_connections` are open."""


class ProfilingOff(Rejected):
    """The debug routes are closed by the setting `profiling`."""
