"""Messages that clients send in the Open Inference Protocol v2.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pipelines.serving.request_error import RequestError

LONGEST_ID = 256
"""Maximum length of a request's `id`, which is returned and logged."""


class RequestInput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An input tensor. `data` stays JSON until the datatype is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] | None = None


class RequestOutput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An output that the client requests."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of `POST …/infer`.

    The protocol defines no parameters and lets a server ignore unknown ones. This server ignores all.
    """

    inputs: list[RequestInput]
    id: Annotated[str, msgspec.Meta(max_length=LONGEST_ID)] | None = None
    outputs: list[RequestOutput] | None = None
    parameters: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(InferenceRequest).decode


def read_request(body: bytes) -> InferenceRequest:
    """Parse a request body, but not the data of its tensors.

    Raises:
        RequestError: 400: the body is not JSON, or not an inference request.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(
            400, f"the body is not an inference request of the Open Inference Protocol v2: {error}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            400, f"the body is not JSON: {error}" if body else "the body is empty; expected JSON"
        ) from None
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply") from None
