"""Who is calling, and does it belong here: the first frame each way on every connection.

The dialer says `Hello`, the listener answers `HelloReply`, and nothing else is sent before that. The version
is judged before any other field is looked at, and additional trailing fields are ignored, so that any
two versions can at least tell each other why they part.

`recipient` guards against an address that now belongs to another server: frames for one member must never
be taken by another, whose log is different. 0 means anybody (calls to an address given by a person).
"""

from __future__ import annotations

import enum

import msgspec

from raftkv.transport.contract import PeerIdentity
from raftkv.transport.framing import ConnectionRefusal, RefusalReason
from raftkv.types import NOBODY, MemberId

MAGIC = "raftkv-peer"
PROTOCOL_VERSION = 1
MAX_NAME_CHARS = 255


class Purpose(enum.IntEnum):
    """PEER: frames from dialer to listener. CALL: one request, one reply. SNAPSHOT: one stream of chunks."""

    PEER = 1
    CALL = 2
    SNAPSHOT = 3


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The dialer's side. `magic` and `version` stay the first two fields in every version."""

    magic: str
    version: int
    purpose: Purpose
    cluster_id: int
    sender: MemberId
    node_id: str
    recipient: MemberId = NOBODY
    raft_address: str = ""

    @property
    def identity(self) -> PeerIdentity:
        """The dialer's, as it says."""
        return PeerIdentity(self.cluster_id, self.sender, self.node_id, self.raft_address)


class HelloReply(msgspec.Struct, frozen=True, array_like=True):
    """`refusal` is "" when accepted, else the reason in words; `reason` is its stable name."""

    magic: str
    version: int
    refusal: str
    reason: str
    cluster_id: int
    member_id: MemberId
    node_id: str


class _Prologue(msgspec.Struct, array_like=True):
    magic: str
    version: int


_encoder = msgspec.msgpack.Encoder()
_prologue_decoder = msgspec.msgpack.Decoder(_Prologue)
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_reply_decoder = msgspec.msgpack.Decoder(HelloReply)


def encode_hello(identity: PeerIdentity, purpose: Purpose, recipient: MemberId) -> bytes:
    me = identity
    return _encoder.encode(
        Hello(MAGIC, PROTOCOL_VERSION, purpose, me.cluster_id, me.member_id, me.node_id, recipient, me.raft_address)
    )


def encode_reply(identity: PeerIdentity, refusal: ConnectionRefusal | None) -> bytes:
    text, reason = (str(refusal), refusal.reason.value) if refusal else ("", "")
    me = identity
    return _encoder.encode(HelloReply(MAGIC, PROTOCOL_VERSION, text, reason, me.cluster_id, me.member_id, me.node_id))


def decode_hello(payload: bytes) -> Hello:
    """Raises `ConnectionRefusal` for anything but a hello of our version."""
    _check_prologue(payload)
    try:
        hello = _hello_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, f"not a hello: {error}") from error
    if max(len(hello.node_id), len(hello.raft_address)) > MAX_NAME_CHARS:
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, "a name in the hello is too long")
    return hello


def decode_reply(payload: bytes) -> HelloReply:
    """Raises `ConnectionRefusal` for anything but an answer that we understand."""
    try:
        return _reply_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _check_prologue(payload)
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, f"not an answer to a hello: {error}") from error


def _check_prologue(payload: bytes) -> None:
    try:
        prologue = _prologue_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, f"not a raftkv handshake: {error}") from error
    if prologue.magic != MAGIC:
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, "not a raftkv handshake")
    if prologue.version != PROTOCOL_VERSION:
        text = f"peer protocol version {prologue.version} is not spoken here, only {PROTOCOL_VERSION}"
        raise ConnectionRefusal(RefusalReason.VERSION, text)


def check_hello(hello: Hello, identity: PeerIdentity) -> None:
    """Raises `ConnectionRefusal` if a valid hello is not for us. Calls are for everybody, from everybody."""
    if hello.recipient not in (NOBODY, identity.member_id):
        text = f"this is member {identity.member_id} ({identity.node_id}), not {hello.recipient}"
        raise ConnectionRefusal(RefusalReason.RECIPIENT, text)
    if hello.purpose is Purpose.CALL:
        return
    if hello.cluster_id != identity.cluster_id:
        text = f"{identity.node_id} belongs to cluster {identity.cluster_id:#x}, not {hello.cluster_id:#x}"
        raise ConnectionRefusal(RefusalReason.CLUSTER, text)
    if hello.sender <= NOBODY or hello.sender == identity.member_id:
        raise ConnectionRefusal(RefusalReason.MEMBER, f"the sender's member id {hello.sender} is not a peer's")


def check_reply(reply: HelloReply, identity: PeerIdentity, purpose: Purpose, recipient: MemberId) -> None:
    """The same judgement at the dialer, in case the listener is too kind; raises `ConnectionRefusal`."""
    if reply.magic != MAGIC:
        raise ConnectionRefusal(RefusalReason.HANDSHAKE, "not a raftkv handshake")
    if reply.refusal:
        known = reply.reason in RefusalReason.__members__.values()
        raise ConnectionRefusal(RefusalReason(reply.reason) if known else RefusalReason.HANDSHAKE, reply.refusal)
    if reply.version != PROTOCOL_VERSION:
        raise ConnectionRefusal(RefusalReason.VERSION, f"it speaks peer protocol version {reply.version}")
    if recipient not in (NOBODY, reply.member_id):
        text = f"member {reply.member_id} ({reply.node_id}) answers there, not {recipient}"
        raise ConnectionRefusal(RefusalReason.RECIPIENT, text)
    if purpose is not Purpose.CALL and reply.cluster_id != identity.cluster_id:
        text = f"{reply.node_id} belongs to cluster {reply.cluster_id:#x}, not {identity.cluster_id:#x}"
        raise ConnectionRefusal(RefusalReason.CLUSTER, text)
