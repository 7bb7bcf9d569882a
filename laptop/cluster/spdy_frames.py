"""Frames of SPDY/3.1, in which Kubernetes clients carry several streams over one connection.

Only what a server of port-forwards needs: streams that the client opens, data, resets, pings and the end of the
session. Flow control is left to TCP, as in Kubernetes' own implementation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 0x01
_LONGEST = 1 << 20  # bytes; longer frames are refused

# The dictionary of header compression (SPDY/3 draft, section 2.6.10.1): these words, each after its length, and a text.
_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age
allow authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie
keep-alive origin
"""
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritativ"
    "e Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 I"
    "nternal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec"
    " 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xm"
    "l,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [word.replace("_", " ").encode() for word in _WORDS.split()]
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + _TAIL.encode()


_DICTIONARY = _dictionary()


class SpdyError(Exception):
    """The client does not speak SPDY/3.1."""


@dataclass(frozen=True)
class Frame:
    """A frame from the client.

    Attributes:
        type: `open`, `data`, `reset`, `ping` or `goaway`.
        stream: stream that it is about; the number of a ping.
        headers: headers of a stream that is opened, with lower-case names.
        data: content of a data frame.
        fin: the client sends nothing more on the stream.
    """

    type: str
    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    fin: bool = False


class FrameReader:
    """Decoder of the client's frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = zlib.decompressobj(zdict=_DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete.

        Raises:
            SpdyError: the bytes are not SPDY/3.1.
        """
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack(">II", self._buffer[:8])
            flags, length = second >> 24, second & 0xFFFFFF
            if length > _LONGEST:
                raise SpdyError(f"a frame is too long: expected at most {_LONGEST} bytes, found {length}")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._frame(first, bool(flags & _FIN), payload)
            if frame is not None:
                yield frame

    def _frame(self, first: int, fin: bool, payload: bytes) -> Frame | None:
        if not first >> 31:
            return Frame("data", first, data=payload, fin=fin)
        version, type_ = (first >> 16) & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"unknown SPDY version: expected {_VERSION}, found {version}")
        try:
            if type_ == _SYN_STREAM:
                (stream,) = struct.unpack(">I", payload[:4])
                return Frame("open", stream & 0x7FFFFFFF, headers=self._read_headers(payload[10:]), fin=fin)
            if type_ in (_RST_STREAM, _PING, _GOAWAY):
                (number,) = struct.unpack(">I", payload[:4])
                return Frame({_RST_STREAM: "reset", _PING: "ping", _GOAWAY: "goaway"}[type_], number)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a frame cannot be read: {error}") from error
        return None

    def _read_headers(self, block: bytes) -> dict[str, str]:
        text = self._headers.decompress(block)
        (count,) = struct.unpack(">I", text[:4])
        position, words = 4, []
        for _ in range(2 * count):
            (length,) = struct.unpack(">I", text[position : position + 4])
            position += 4
            words.append(text[position : position + length].decode())
            position += length
        return dict(zip((name.lower() for name in words[::2]), words[1::2], strict=True))


class FrameWriter:
    """Encoder of the server's frames."""

    def __init__(self) -> None:
        self._headers = zlib.compressobj(zdict=_DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """Return the frame that accepts a stream, without headers."""
        block = self._headers.compress(struct.pack(">I", 0)) + self._headers.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_REPLY, struct.pack(">I", stream) + block)

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Return a data frame; `fin` ends the server's half of the stream."""
        return struct.pack(">II", stream, (_FIN if fin else 0) << 24 | len(data)) + data

    def ping(self, number: int) -> bytes:
        """Return the answer to a ping."""
        return _control(_PING, struct.pack(">I", number))


def _control(type_: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | _VERSION, type_, len(payload)) + payload
