"""Between the policy and httpx: what its requests, answers and errors mean here."""

from __future__ import annotations

from typing import Any

import httpx

from raftkv.client.replies import Answer
from raftkv.client.routing import Attempt, NoAnswer, NotSent

CONNECT_TIMEOUT_SECONDS = 2.0
"""A server that is down should cost this, not the whole call's time."""


def client_arguments() -> dict[str, Any]:
    """Redirects are the policy's business. Proxies from the environment are not used: a database that is asked by
    way of a web proxy because of a variable set for browsers is a surprise, and a slow one."""
    return {"follow_redirects": False, "trust_env": False}


def request_arguments(attempt: Attempt) -> dict[str, Any]:
    call = attempt.call
    timeout = httpx.Timeout(attempt.timeout_seconds, connect=min(attempt.timeout_seconds, CONNECT_TIMEOUT_SECONDS))
    return {
        "method": call.method,
        "url": attempt.server,
        "content": call.body or None,
        "headers": {"content-type": "application/json"} if call.body else None,
        "timeout": timeout,
        # httpx would normalise the path; this is sent as it is.
        "extensions": {"target": call.target.encode("ascii")},
    }


def answer_of(response: httpx.Response) -> Answer:
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def failure_of(error: httpx.HTTPError | TimeoutError) -> NotSent | NoAnswer:
    """Only a connection that was never made is surely without effect."""
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        return NotSent(f"cannot connect ({text})")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return NoAnswer("no answer in time")
    return NoAnswer(f"the connection broke ({text})")
