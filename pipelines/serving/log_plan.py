"""Plan of the inference log: what of the requests to a bundle is logged, by its schema and the pod's policy."""

from __future__ import annotations

from pipelines.declarations.baseline import category
from pipelines.declarations.bundle import InputTensor, RequestSchema
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.log_messages import LogPlan, TensorPlan
from pipelines.serving.logged_inputs import narrowing


def log_plan(model: str, bundle: str, schema: RequestSchema, policy: LogPolicy) -> LogPlan:
    """Return what is logged.

    Args:
        model, bundle: name of the model, digest of the bundle.
        schema: request schema of the bundle, which knows what was personal when it was trained.
        policy: what is personal now.
    """
    hidden = {c.name for tensor in schema.inputs for c in tensor.columns if c.personal or c.name in policy.withheld}
    inputs = tuple(_tensor(tensor, hidden, policy) for tensor in schema.inputs)
    return LogPlan(model, bundle, policy.sample, inputs, tuple(tensor.name for tensor in schema.outputs))


def _tensor(tensor: InputTensor, hidden: set[str], policy: LogPolicy) -> TensorPlan:
    narrow = narrowing(tensor.datatype)
    withheld = tuple(at for at, column in enumerate(tensor.columns) if column.name in hidden)
    groups = {
        at: tuple((narrow(value), category(value)) for value in column.values)
        for at, column in enumerate(tensor.columns)
        if at in withheld and column.name in policy.groups and column.values is not None
    }
    return TensorPlan(tensor.name, tensor.datatype, tuple(c.name for c in tensor.columns), withheld, groups)
