"""What a node says of itself when it is asked, checked before any of it enters a configuration.

Whoever listens at the address that a join names can answer anything, and a configuration stands in the log of every
member for good: an id that names nobody could not be addressed, one that is another member's would count its vote
twice, and the HTTP address is where clients are sent to.
"""

from __future__ import annotations

from raftkv.errors import MembershipRefused
from raftkv.runtime.addresses import split_reachable_address
from raftkv.runtime.settings.schema import NODE_ID
from raftkv.types import Member, MemberId

MEMBER_ID_MAX = (1 << 63) - 1
ADDRESS_MAX_CHARACTERS = 300
"""The longest host name has 253."""


def check_introduction(members: dict[MemberId, Member], introduced: Member) -> None:
    """Raises `MembershipRefused`; no member was changed by then."""
    problem = _problem(members, introduced)
    if problem:
        raise MembershipRefused(f"the node at {introduced.raft_address} was not joined: {problem}; nothing was changed")


def _problem(members: dict[MemberId, Member], introduced: Member) -> str:
    """Why `introduced` cannot stand among `members`, where it may stand already; empty if it can."""
    member_id, http_address = introduced.member_id, introduced.http_address
    if not NODE_ID.fullmatch(introduced.node_id):
        return f"it calls itself {introduced.node_id[:100]!r}, which is no node id"
    if not 1 <= member_id <= MEMBER_ID_MAX:
        return f"it gives itself the number {member_id}, which is no member id"
    known = members.get(member_id)
    if known is not None and known.node_id != introduced.node_id:
        return f"it has the member id of {known.node_id}: perhaps it runs on a copy of that one's data directory"
    if len(http_address) > ADDRESS_MAX_CHARACTERS:
        return f"its HTTP address has {len(http_address)} characters, more than {ADDRESS_MAX_CHARACTERS}"
    try:
        if http_address:
            split_reachable_address(http_address)
    except ValueError as error:
        return f"its HTTP address is not one: {error}"
    return ""
