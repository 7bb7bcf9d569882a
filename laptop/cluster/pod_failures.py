"""The `podFailurePolicy` of Jobs, limited to rules on exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.objects import Object, name_of, namespace_of


@dataclass(frozen=True)
class Failures:
    """Failures of a Job so far.

    Attributes:
        counted: number of failures that count towards `backoffLimit`.
        final: reason why the Job has failed for good, in Kubernetes' words; "" if it has not.
    """

    counted: int
    final: str = ""


def judge_failures(policy: dict[str, Any] | None, failed: Sequence[Object]) -> Failures:
    """Apply a policy to the failed pods of a Job.

    Source: kubernetes.io, "Pod failure policy": the first rule that matches decides; a pod that matches none counts.
    """
    rules = list(enumerate((policy or {}).get("rules") or ()))
    counted = 0
    for pod in failed:
        action, why = next(
            ((rule["action"], why) for index, rule in rules if (why := _match(rule, index, pod))), ("Count", "")
        )
        if action == "FailJob":
            return Failures(counted + 1, why)
        counted += action == "Count"
    return Failures(counted)


def _match(rule: dict[str, Any], index: int, pod: Object) -> str:
    wanted = rule["onExitCodes"]
    for container, code in _exit_codes(pod):
        if wanted.get("containerName") not in (None, container) or code == 0:
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            where = f"{namespace_of(pod)}/{name_of(pod)}"
            return (
                f"Container {container} for pod {where} failed with exit code {code} "
                f"matching {rule['action']} rule at index {index}"
            )
    return ""


def _exit_codes(pod: Object) -> Iterator[tuple[str, int]]:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated")
        if ended:
            yield status["name"], ended["exitCode"]
