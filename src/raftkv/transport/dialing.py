"""Opening a connection to another node: connect, TLS, handshake, all within one time limit."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from typing import Protocol

from raftkv.errors import PeerProtocolError, Unavailable
from raftkv.transport.address import describe_os_error, parse_address
from raftkv.transport.connection import FrameConnection, FrameInbox
from raftkv.transport.contract import PeerIdentity
from raftkv.transport.framing import MAX_HANDSHAKE_BYTES, ConnectionRefusal, FrameKind, RefusalReason
from raftkv.transport.handshake import Purpose, check_reply, decode_reply, encode_hello
from raftkv.types import NOBODY, MemberId


@dataclasses.dataclass(slots=True)
class Dialed:
    """An open connection whose listener has accepted us. The caller owns it and must close it."""

    connection: FrameConnection
    inbox: FrameInbox


class Dialer(Protocol):
    """Makes connections for calls and snapshots; over TCP or within one process."""

    async def dial(
        self, address: str, identity: PeerIdentity, purpose: Purpose, recipient: MemberId = NOBODY
    ) -> Dialed: ...


@dataclasses.dataclass(frozen=True, slots=True)
class TcpDialer:
    """Everything about dialling that does not change from one peer to the next."""

    dial_timeout_s: float
    write_stall_timeout_s: float
    tls: ssl.SSLContext | None

    async def dial(
        self, address: str, identity: PeerIdentity, purpose: Purpose, recipient: MemberId = NOBODY
    ) -> Dialed:
        """Raises `Unavailable` with the address and a reason that is the same at every retry, or `InvalidInput`.

        A cancellation closes what was opened.
        """
        # The answer to the hello and, close behind it, a verdict that needs no more of us (a refused snapshot).
        inbox = FrameInbox(capacity=2)
        connection = FrameConnection(MAX_HANDSHAKE_BYTES, inbox.put, inbox.end)
        connection.write_stall_timeout_s = self.write_stall_timeout_s
        host, port = parse_address(address)
        try:
            async with asyncio.timeout(self.dial_timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: connection, host, port, ssl=self.tls)
                connection.send_frame(FrameKind.HELLO, encode_hello(identity, purpose, recipient))
                kind, payload = await inbox.receive()
            if kind != FrameKind.HELLO_REPLY:
                raise ConnectionRefusal(RefusalReason.HANDSHAKE, "not a raftkv handshake")
            check_reply(decode_reply(payload), identity, purpose, recipient)
        except PeerProtocolError as error:
            connection.abort("handshake refused")
            raise Unavailable(f"{address} refused the connection: {error}") from error
        except (OSError, UnicodeError) as error:
            connection.abort("handshake failed")
            raise Unavailable(f"cannot reach {address}: {describe_os_error(error)}") from error
        except BaseException:
            connection.abort("dial cancelled")
            raise
        return Dialed(connection, inbox)
