"""W3C Trace Context, which links the spans of one request across services.

Source: https://www.w3.org/TR/trace-context/ (level 1; flags and later versions by level 2).
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
MOST_MEMBERS = 32
LONGEST_TRACESTATE = 512

BATCH = 256
"""Number of ids generated at a time."""

# Ids must be unique, not hard to guess. This is twenty times faster than os.urandom.
_random_bytes = random.Random(random.SystemRandom().getrandbits(256)).randbytes  # noqa: S311


class Trace(NamedTuple):
    """The trace a request belongs to.

    Attributes:
        parent: outgoing `traceparent`: `00-<trace>-<span of this server>-<flags>`.
        state: `tracestate` as received, or b"".
    """

    parent: bytes
    state: bytes


TRACE = slice(3, 35)
"""Position of the trace id in `traceparent`: 32 hexadecimal digits."""

TRACE_AND_SPAN = slice(3, 52)
"""Position of the trace id and the span id, which together are unique to a request."""


_made: list[bytes] = []


def new_parent() -> bytes:
    """Return the `traceparent` of a new trace. It is sampled, because the inference log records it."""
    if not _made:
        # One loop over many ids is several times faster than a call for each.
        digits = _random_bytes(24 * BATCH).hex().encode()
        for start in range(0, 48 * BATCH, 48):
            middle = start + 32
            _made.append(b"00-%b-%b-01" % (digits[start:middle], digits[middle : start + 48]))
    return _made.pop()


def continue_trace(parents: list[bytes], states: list[bytes]) -> Trace:
    """Continue the trace of a request with a new span; start a new trace if its headers are missing or malformed.

    Args:
        parents: values of every `traceparent` header. More than one is malformed.
        states: values of every `tracestate` header, in order.
    """
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[5]):
        return Trace(new_parent(), b"")
    flags = b"01" if int(match[4], 16) & 1 else b"00"
    parent = b"00-%b-%b-%b" % (match[2], _random_bytes(8).hex().encode(), flags)
    return Trace(parent, _valid_state(states) if states else b"")


def _valid_state(states: list[bytes]) -> bytes:
    """Return the joined members, or b"" if one is malformed: the standard then drops the state and keeps the trace."""
    members = [member.strip(b" \t") for state in states for member in state.split(b",")]
    members = [member for member in members if member]
    if len(members) > MOST_MEMBERS or not all(_is_member(member) for member in members):
        return b""
    joined = b",".join(members)
    return joined if len(joined) <= LONGEST_TRACESTATE else b""


def _is_member(member: bytes) -> bool:
    return _MEMBER.fullmatch(member) is not None
