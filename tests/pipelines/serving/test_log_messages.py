"""Messages between the inference log and its writer keep every record whole."""

from __future__ import annotations

import io

import msgspec
import pytest

from pipelines.serving.log_messages import (
    LARGEST_MESSAGE,
    AttemptFailed,
    PutObject,
    Records,
    RecordsLost,
    batch_of,
    contents,
    frame,
    read_report,
    read_request,
    records_of,
    take_contents,
)

TRACE = b"0af7651916cd43dd8448eb211c80319c"
FLAT = [
    *(1.5, TRACE, b'"one"', 1, (msgspec.Raw(b"[1, 2]"), b"[3]")),
    *(2.5, TRACE, b"500", 0, (b"", b"")),
]


def test_a_batch_arrives_as_it_was_sent() -> None:
    (content,) = contents(io.BytesIO(frame(batch_of(FLAT, 77))))
    batch = read_request(content)
    assert records_of(batch) == Records(  # type: ignore[arg-type]
        [1.5, 2.5], [TRACE, TRACE], [b'"one"', b"500"], [1, 0], [[b"[1, 2]", b""], [b"[3]", b""]]
    )
    assert batch.size == 77  # type: ignore[union-attr]


def test_values_are_never_taken_for_those_of_another_record() -> None:
    batch = batch_of(FLAT, 77)
    batch.ids += b"\0more"
    with pytest.raises(ValueError, match="differ in length"):
        records_of(batch)


def test_reports_are_read_however_they_arrive() -> None:
    sent = frame(RecordsLost(3, 9)) + frame(AttemptFailed())
    received, found = bytearray(), []
    for byte in sent:
        received.append(byte)
        found += take_contents(received)
    assert [read_report(content) for content in found] == [RecordsLost(3, 9), AttemptFailed()]
    assert not received


def test_a_message_that_was_sent_in_part_is_ignored() -> None:
    sent = frame(PutObject("key", b"content"))
    assert [*contents(io.BytesIO(sent[:-1]))] == []
    assert [*contents(io.BytesIO(sent[:3]))] == []


def test_a_length_that_cannot_be_is_refused() -> None:
    head = (LARGEST_MESSAGE + 1).to_bytes(4, "little")
    with pytest.raises(ValueError, match="message of"):
        take_contents(bytearray(head))
    with pytest.raises(ValueError, match="message of"):
        next(contents(io.BytesIO(head)))
