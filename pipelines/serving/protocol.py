"""The messages of the Open Inference Protocol v2 that a client sends.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pipelines.serving.refusal import Refusal

LONGEST_ID = 256
"""Characters of a request's `id`, which is echoed and logged."""


class RequestInput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An input tensor. `data` stays JSON until the tensor's datatype says how to read it."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] | None = None


class RequestOutput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An output that the client asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of `POST …/infer`.

    The protocol defines no parameters and lets a server ignore those it does not know: this one knows none, and
    ignores them at all three places.
    """

    inputs: list[RequestInput]
    id: Annotated[str, msgspec.Meta(max_length=LONGEST_ID)] | None = None
    outputs: list[RequestOutput] | None = None
    parameters: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(InferenceRequest).decode


def read_request(body: bytes) -> InferenceRequest:
    """The request that `body` holds; the tensors' data is not looked at yet.

    Raises:
        Refusal: 400: it is not JSON, or not an inference request.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body is not an inference request of the Open Inference Protocol v2: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is not JSON: {error}" if body else "the body is empty; expected JSON") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
