"""MLServer runtime for ONNX, which MLServer lacks; the minimum needed to serve the same file.

It runs in the virtual environment `.venv/bench`, and imports nothing from this repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]
    """Model that runs one ONNX file with one numeric input on one core, as our server does."""

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
        """Decode the request, run the model, and encode the outputs, with MLServer's codec."""
        feed = {tensor.name: NumpyCodec.decode_input(tensor).astype("float32") for tensor in payload.inputs}
        arrays = self.session.run(self.output_names, feed)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self.output_names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
