"""W3C Trace Context: who asked, so that a request can be followed through the services it touches.

Source: https://www.w3.org/TR/trace-context/ (level 1, and level 2's rule for flags and later versions).
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

# Ids must be unlikely to repeat, not hard to guess; this is twenty times faster than os.urandom.
_bits = random.SystemRandom().getrandbits(256)
_random_bits = random.Random(_bits).getrandbits  # noqa: S311


class Trace(NamedTuple):
    """The trace a request belongs to.

    Attributes:
        id: 32 hexadecimal digits.
        span: 16 hexadecimal digits: this server's part of the trace.
        flags: 2 hexadecimal digits; 01 is sampled.
        state: `tracestate` as it came, b"" if it did not.
    """

    id: bytes
    span: bytes
    flags: bytes
    state: bytes

    @property
    def parent(self) -> bytes:
        """`traceparent` as this server hands it on."""
        return b"00-%b-%b-%b" % (self.id, self.span, self.flags)


def new_trace() -> Trace:
    """A trace that starts here. It is sampled: the inference log records it."""
    bits = _random_bits(192) or 1
    return Trace(b"%032x" % (bits >> 64 or 1), b"%016x" % (bits & 0xFFFFFFFFFFFFFFFF or 1), b"01", b"")


def continue_trace(parents: list[bytes], states: list[bytes]) -> Trace:
    """The trace that the request's headers name, with a span of its own; a new one if they name none or are malformed.

    Args:
        parents: values of every `traceparent` header; more than one is malformed.
        states: values of every `tracestate` header, in order.
    """
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[5]):
        return new_trace()
    flags = b"01" if int(match[4], 16) & 1 else b"00"
    return Trace(match[2], b"%016x" % (_random_bits(64) or 1), flags, _valid_state(states) if states else b"")


def _valid_state(states: list[bytes]) -> bytes:
    """The list of all members, or b"" if it is malformed; then the standard has it dropped and the trace kept."""
    members = [member.strip(b" \t") for state in states for member in state.split(b",")]
    members = [member for member in members if member]
    if len(members) > MOST_MEMBERS or not all(_is_member(member) for member in members):
        return b""
    joined = b",".join(members)
    return joined if len(joined) <= LONGEST_TRACESTATE else b""


def _is_member(member: bytes) -> bool:
    return _MEMBER.fullmatch(member) is not None
