"""MLServer's side of the comparison: it has no ONNX runtime of its own, so this is the least that runs the same file.

It lives in an environment of its own, `.venv/bench`, and imports nothing of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Runs one ONNX file with one numeric input, on one core, as our server does."""

    async def load(self) -> bool:
        """Load the file that `model-settings.json` names."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        content = Path(str(self.settings.parameters.uri)).read_bytes()
        self.session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.output_names = [value.name for value in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Decode, run, encode, with MLServer's own codec."""
        feed = {tensor.name: NumpyCodec.decode_input(tensor).astype("float32") for tensor in payload.inputs}
        arrays = self.session.run(self.output_names, feed)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self.output_names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
