"""Counters of the pods of a release, read from a Prometheus that scrapes them.

Each look is one instant query, which returns the newest scrape of every pod, so no pod is missed. Pods belong to a
release by the hash of its pod template, which is in their names, and so in the name of the process that they expose.
Nothing is assumed about the labels that Prometheus adds, other than `job` and `instance`, which it always adds.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pipelines.declarations.canary_settings import AUTHORIZATION_VARIABLE
from pipelines.declarations.environment import Prometheus
from pipelines.declarations.errors import MlopsError
from pipelines.serving.canary_analysis import RequestTotals
from pipelines.serving.pod_counters import CountedProcesses, UnreadableMetricsError, process_totals
from pipelines.serving.probe import EndpointClient, UnavailableError

_ABOUT = "inference_bundle_info"
_NAMES = (
    _ABOUT,
    "inference_([a-z]+_)?requests_total",  # also counts of a part of the requests
    "inference_([a-z]+_)?request_seconds_(bucket|count)",
    "inference_log_seconds_(sum|squares)",
    "inference_prediction_(count|sum|squares)",
    "inference_predictions_bucket",
)
_OWN_LABELS = frozenset({"__name__", "code", "le", "model", "bundle", "process"})
"""Labels of the server. All others are those of the scrape, and the same for all metrics of a process."""

_QUERY = "/api/v1/query"
_HASH = re.compile(r"[a-z0-9]{1,63}")
_LARGEST_ANSWER = 16 << 20  # bytes

Answer = Mapping[str, Any]


def counters_query(model: str, pod_hash: str, job: str | None = None) -> str:
    """Return the PromQL expression for all counters of the pods of a release.

    Args:
        model: name of the model, which is that of its Rollout.
        pod_hash: hash of the release's pod template.
        job: name of the scrape job whose targets count; None for all.

    Raises:
        UnavailableError: the hash is not one.
    """
    if not _HASH.fullmatch(pod_hash):
        raise UnavailableError(
            f"hash of the pod template: expected letters and digits, found {pod_hash!r}",
            fix="run the check from the AnalysisTemplate of the model",
        )
    process = f"{model}-{pod_hash}-[a-z0-9]+-[0-9a-f]+"
    scraped = f',job="{job}"' if job is not None else ""
    about = f'{_ABOUT}{{model="{model}",process=~"{process}"{scraped}}}'
    return f'{{__name__=~"{"|".join(_NAMES)}"}} and on (job, instance) {about}'


def read_processes(answer: Answer, p99_seconds: float) -> dict[str, RequestTotals]:
    """Return process → what it answered since its start, from the answer to `counters_query`.

    Args:
        answer: the answer, as JSON.
        p99_seconds: requests above this are slow.

    Raises:
        UnreadableMetricsError: it is not such an answer, or a metric of a process is missing.
    """
    targets: dict[frozenset[tuple[str, str]], list[tuple[str, Mapping[str, str], float]]] = {}
    try:
        if answer["status"] != "success" or answer["data"]["resultType"] != "vector":
            raise ValueError(answer.get("error") or "another result")
        for series in answer["data"]["result"]:
            labels = {str(name): str(value) for name, value in series["metric"].items()}
            scraped = frozenset(item for item in labels.items() if item[0] not in _OWN_LABELS)
            sample = (labels["__name__"], labels, float(series["value"][1]))
            targets.setdefault(scraped, []).append(sample)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnreadableMetricsError(f"Prometheus: expected the result of a query, found {error}") from None
    return dict(process_totals(samples, p99_seconds) for samples in targets.values())


@dataclass
class PrometheusCounters:
    """Counters of the pods of one release since the first look.

    Attributes:
        query: returns the answer to a PromQL expression; raises `MlopsError`.
        model: name of the model.
        pod_hash: hash of the release's pod template.
        p99_seconds: requests above this are slow.
        job: name of the scrape job whose targets count; None for all.
        problem: see `RequestCounters`.
    """

    query: Callable[[str], Answer]
    model: str
    pod_hash: str
    p99_seconds: float
    job: str | None = None
    problem: str = ""
    _counted: CountedProcesses = field(default_factory=CountedProcesses)

    def look(self) -> None:
        """Read all pods. What Prometheus does not know keeps its last figures."""
        try:
            found = read_processes(self.query(counters_query(self.model, self.pod_hash, self.job)), self.p99_seconds)
        except MlopsError as error:
            self.problem = error.what
            return
        self.problem = "" if found else f"Prometheus has no metrics of pods {self.model}-{self.pod_hash}-…"
        for process, totals in found.items():
            self._counted.note(process, totals)

    @property
    def totals(self) -> RequestTotals:
        """What all pods answered since the first look at each of them."""
        return self._counted.totals


def open_prometheus(prometheus: Prometheus, environ: Mapping[str, str], timeout: float) -> Callable[[str], Answer]:
    """Return a function that answers PromQL expressions; it raises `MlopsError`.

    Args:
        prometheus: the server.
        environ: environment variables, with the header `Authorization` if one is declared.
        timeout: timeout of a query, in seconds.

    Raises:
        UnavailableError: the header or the certificate authority is missing or not valid.
    """
    headers: dict[str, str] = {}
    if prometheus.authorization is not None:
        value = environ.get(AUTHORIZATION_VARIABLE, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)*", value):
            where = f"{prometheus.authorization.key} of the Secret {prometheus.authorization.secret}"
            raise UnavailableError(
                f"{where}: expected the header for Prometheus on one line, found "
                + ("none" if not value else "other characters"),
                fix="create the Secret in the namespace of the environment",
            )
        headers["authorization"] = value
    context = None
    if prometheus.certificate_authority is not None:
        try:
            context = ssl.create_default_context(cadata=prometheus.certificate_authority)
        except ssl.SSLError as error:
            raise UnavailableError(
                f"certificate_authority of Prometheus: expected certificates in PEM, found {error}",
                fix="correct monitoring.prometheus in Pulumi.<environment>.yaml",
            ) from None
    client = EndpointClient(
        prometheus.url, "", timeout=timeout, largest_answer=_LARGEST_ANSWER, headers=headers, context=context
    )

    def ask(expression: str) -> Answer:
        path = f"{_QUERY}?{urlencode({'query': expression})}"
        try:
            return client.get(path)
        except MlopsError as error:
            raise UnavailableError(f"Prometheus: {error.what.replace(path, _QUERY)}") from None

    return ask
