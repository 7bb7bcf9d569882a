"""Messages that clients send in the Open Inference Protocol v2.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pipelines.serving.request_error import RequestError

LONGEST_ID = 256
"""Maximum length of a request's `id`, which is returned and logged."""


class RequestInput(msgspec.Struct, gc=False):
    """An input tensor. `data` stays JSON until the datatype is known; it is empty if it is missing."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class RequestOutput(msgspec.Struct, gc=False):
    """An output that the client requests."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct, gc=False):
    """The body of `POST …/infer`.

    Clients of KServe, Triton and MLServer add keys, such as `model_name`, and parameters. They are ignored, but for the
    parameters that change what the data or the answer means; see `check_parameters`.
    """

    inputs: list[RequestInput]
    id: Annotated[str, msgspec.Meta(max_length=LONGEST_ID)] | None = None
    outputs: list[RequestOutput] | None = None
    parameters: dict[str, Any] | None = None


_SHARED_MEMORY = "shared memory is not supported; send the data as JSON"
_BINARY = "the binary tensor data extension is not supported; send the data as JSON"

_REASONS = {
    "request": {"sequence_id": "this server keeps no state between requests, so it knows no sequences"},
    "input": {"shared_memory_region": _SHARED_MEMORY, "binary_data_size": _BINARY},
    "output": {
        "shared_memory_region": "shared memory is not supported; the answer is JSON",
        "classification": "the classification extension is not supported; ask for the output without it",
    },
}
"""Where a parameter stands → parameter → why a request with it is refused.

Sources: Triton's extensions of the protocol (shared memory, binary data, classification, sequence).
"""


def check_parameters(request: InferenceRequest) -> None:
    """Check that no parameter changes what the request means.

    Raises:
        RequestError: 400: a parameter is not supported.
    """
    named = [
        ("request", "the request", request.parameters),
        *(("input", f"input {tensor.name[:80]!r}", tensor.parameters) for tensor in request.inputs),
        *(("output", f"output {output.name[:80]!r}", output.parameters) for output in request.outputs or ()),
    ]
    for kind, where, parameters in named:
        for name, value in (parameters or {}).items():
            if value and name in _REASONS[kind]:
                raise RequestError(400, f"{where}: parameter {name!r}: {_REASONS[kind][name]}")
            if name == "content_type" and isinstance(value, str) and value.startswith("base64"):
                raise RequestError(400, f"{where}: content_type {value[:80]!r} is not supported; send text as it is")


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
