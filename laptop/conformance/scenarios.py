"""Scenarios: what a user does to a cluster and waits for, played on any cluster by its API alone.

A scenario is a list of steps. Playing it gives an observation: the history of one watched object, and the end state of
the namespace, both in terms that do not depend on the cluster (no hashes, times or generated names).
"""

from __future__ import annotations

import contextlib
import difflib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.types import PatchType

from pipelines.cluster.rollouts import Rollout

_LOOK = 0.25  # seconds between looks
_CALM = 0.7  # seconds without a change after which a step is over: acts of people do not race with controllers
_UNCHANGED = 1.5  # seconds without a change after which an end state counts as final
_LONGEST_STEP = 90.0  # seconds
_WATCH = 20  # seconds until a watch is opened again

Summary = dict[str, Any]
Object = dict[str, Any]

# Kinds as plain data.
AnalysisTemplate = create_namespaced_resource("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates")
AnalysisRun = create_namespaced_resource("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns")
ConfigMap = create_namespaced_resource("", "v1", "ConfigMap", "configmaps")
CronJob = create_namespaced_resource("batch", "v1", "CronJob", "cronjobs")
Deployment = create_namespaced_resource("apps", "v1", "Deployment", "deployments")
Event = create_namespaced_resource("", "v1", "Event", "events")
Ingress = create_namespaced_resource("networking.k8s.io", "v1", "Ingress", "ingresses")
Job = create_namespaced_resource("batch", "v1", "Job", "jobs")
Pod = create_namespaced_resource("", "v1", "Pod", "pods")
ReplicaSet = create_namespaced_resource("apps", "v1", "ReplicaSet", "replicasets")
Service = create_namespaced_resource("", "v1", "Service", "services")
ServiceAccount = create_namespaced_resource("", "v1", "ServiceAccount", "serviceaccounts")
_Namespace = create_global_resource("", "v1", "Namespace", "namespaces")
_KINDS = (
    *(AnalysisTemplate, AnalysisRun, ConfigMap, CronJob, Deployment, Event, Ingress, Job, Pod, ReplicaSet, Rollout),
    *(Service, ServiceAccount),
)


class Summarise(Protocol):
    """Summary of a namespace."""

    def __call__(self, stage: Stage) -> Summary:
        """Return the summary."""
        ...


@dataclass
class Stage:
    """A namespace of a cluster, in which a scenario is played.

    Attributes:
        client: client of the cluster, as administrator, in the namespace.
        namespace: name of the namespace.
        restart: restarts the cluster's controllers.
        names: generated names and hashes that were seen, and what stands for them.
    """

    client: Client
    namespace: str
    restart: Callable[[], None]
    names: dict[str, str] = field(default_factory=dict)

    def find_all(self, resource: Any) -> list[Object]:
        """Return the objects of a kind as plain data, oldest first."""
        found = [item.to_dict() for item in self.client.list(resource)]
        return sorted(found, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]))

    def known(self, text: str) -> str:
        """Return a text with the generated names and hashes replaced."""
        for name in sorted(self.names, key=len, reverse=True):
            text = text.replace(name, self.names[name])
        return text


@dataclass(frozen=True)
class ScenarioStep:
    """One step: an act, or a state to wait for."""

    name: str
    act: Callable[[Stage], None] | None = None
    wanted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A scenario.

    Attributes:
        name: name of the test.
        steps: what happens.
        labels: labels of the namespace.
        unsteady: what is not compared, because races in the real controllers decide it: `history`, or parts of the
            end state.
    """

    name: str
    steps: Sequence[ScenarioStep]
    labels: Mapping[str, str] = field(default_factory=dict)
    unsteady: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Observation:
    """What was seen of a scenario.

    Attributes:
        history: distinct states of the watched object, in order.
        end: summary of the namespace at the end.
        failure: what did not happen in time, or "".
        seconds: how long it took.
    """

    history: list[tuple[Any, ...]]
    end: Summary
    failure: str
    seconds: float


def until(**wanted: Any) -> ScenarioStep:
    """Wait until the summary has values, which may be predicates."""
    shown = ", ".join(f"{key}={value if not callable(value) else '…'}" for key, value in wanted.items())
    return ScenarioStep(f"until {shown}", wanted=wanted)


def act(name: str, do: Callable[[Stage], None]) -> ScenarioStep:
    """Do something."""
    return ScenarioStep(name, act=do)


def create(resource: Any, manifest: Object) -> ScenarioStep:
    """Create an object."""
    return act(f"create {manifest['metadata']['name']}", lambda stage: _create(stage, resource, manifest))


def _create(stage: Stage, resource: Any, manifest: Object) -> None:
    stage.client.create(resource.from_dict({**manifest, "metadata": {**manifest["metadata"]}}))


def patch(resource: Any, name: str, change: Object) -> ScenarioStep:
    """Change an object by a merge patch. `resource` may be a status."""

    def do(stage: Stage) -> None:
        stage.client.patch(resource, name, change, patch_type=PatchType.MERGE)

    return act(f"patch {name}: {change}", do)


def delete(resource: Any, name: str, propagation: str | None = None) -> ScenarioStep:
    """Delete an object."""

    def do(stage: Stage) -> None:
        from lightkube.types import CascadeType

        cascade = CascadeType(propagation) if propagation else None
        stage.client.delete(resource, name, cascade=cascade)

    return act(f"delete {name}", do)


def restart() -> ScenarioStep:
    """Restart the controllers."""
    return act("restart the controllers", lambda stage: stage.restart())


@dataclass
class ScenarioCluster:
    """A cluster that scenarios are played on.

    Attributes:
        kubeconfig: file that leads to the cluster.
        restart: restarts its controllers.
        name: name of the cluster, for messages.
    """

    kubeconfig: Path
    restart: Callable[[], None]
    name: str

    def __post_init__(self) -> None:
        self._config = KubeConfig.from_file(self.kubeconfig).get()
        self._prepare_decoders()

    def _prepare_decoders(self) -> None:
        """Decode an object of each kind and an error: several threads may decode a type only after its first use."""
        client = self._client("default")
        for kind in _KINDS:
            with contextlib.suppress(ApiError, httpx2.HTTPStatusError):  # a cluster without Argo's kinds
                list(client.list(kind))
            with contextlib.suppress(ApiError, httpx2.HTTPStatusError):
                client.get(kind, "none")
        client.close()

    def _client(self, namespace: str) -> Client:
        timeout = httpx2.Timeout(30, read=60)
        return Client(config=self._config, namespace=namespace, trust_env=False, timeout=timeout)

    def play_all(
        self, scenarios: Sequence[Scenario], watched: Watched, summarise: Summarise, *, at_once: int
    ) -> dict[str, Observation]:
        """Play scenarios, several at once, each in its own namespace. Return name → observation."""
        with ThreadPoolExecutor(at_once) as pool:
            played = pool.map(lambda one: self.play(one, watched, summarise), scenarios)
            return dict(zip((one.name for one in scenarios), played, strict=True))

    def play(self, scenario: Scenario, watched: Watched, summarise: Summarise) -> Observation:
        """Play one scenario."""
        namespace = f"{scenario.name[:40]}-{uuid.uuid4().hex[:6]}"
        client = self._client(namespace)
        client.create(_Namespace.from_dict({"metadata": {"name": namespace, "labels": dict(scenario.labels)}}))
        stage = Stage(client, namespace, self.restart)
        started, failure, end = time.monotonic(), "", Summary()
        with watched.watching(stage) as states:
            try:
                failure = _play_steps(scenario.steps, stage, summarise)
                end = _settled(stage, summarise, _UNCHANGED)
            except (ApiError, httpx2.HTTPError) as error:
                failure = failure or f"the cluster could not be asked: {error!r}"
        end = {key: value for key, value in end.items() if key not in scenario.unsteady}
        reduced = [seen for state in states if (seen := watched.reduce(state, stage)) is not None]
        history = [] if "history" in scenario.unsteady else _distinct(reduced)
        return Observation(history, end, failure, time.monotonic() - started)


def _play_steps(steps: Sequence[ScenarioStep], stage: Stage, summarise: Summarise) -> str:
    """Play steps until one fails. Return what did not happen, or ""."""
    for step in steps:
        if step.act is not None:
            try:
                step.act(stage)
            except ApiError as error:
                return f"{step.name}: {error.status.code} {error.status.message}"
        elif not _await(stage, step.wanted, summarise):
            return f"{step.name}: not after {_LONGEST_STEP:.0f} s"
    return ""


def _await(stage: Stage, wanted: Mapping[str, Any], summarise: Summarise) -> bool:
    deadline = time.monotonic() + _LONGEST_STEP
    while time.monotonic() < deadline:
        summary = summarise(stage)
        if all(_is(summary.get(key), value) for key, value in wanted.items()):
            _settled(stage, summarise, _CALM)
            return True
        time.sleep(_LOOK)
    return False


def _is(found: Any, wanted: Any) -> bool:
    return bool(wanted(found)) if callable(wanted) else bool(found == wanted)


def _settled(stage: Stage, summarise: Summarise, calm: float) -> Summary:
    """Return the summary once it has not changed for a number of seconds, or has changed for far longer."""
    last, since = summarise(stage), time.monotonic()
    deadline = since + 15 * calm
    while time.monotonic() < min(since + calm, deadline):
        time.sleep(_LOOK)
        summary = summarise(stage)
        if summary != last:
            last, since = summary, time.monotonic()
    return last


def _distinct(states: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]


def differences(real: Observation, ours: Observation) -> list[str]:
    """Return what differs between two observations of a scenario, one line each; [] if they are the same."""
    found = [
        f"{name} did not finish: {seen.failure}" for name, seen in (("real", real), ("ours", ours)) if seen.failure
    ]
    found += _different("", real.end, ours.end)
    if real.history != ours.history:
        found.append("history:")
        found += [f"  {line}" for line in difflib.ndiff(_lines(real.history), _lines(ours.history)) if line[0] != "?"]
    return found


def _lines(history: Sequence[tuple[Any, ...]]) -> list[str]:
    return [" ".join(map(str, state)) for state in history]


def _different(path: str, real: Any, ours: Any) -> list[str]:
    if isinstance(real, dict) and isinstance(ours, dict):
        keys = sorted({*real, *ours})
        return [line for key in keys for line in _different(f"{path}.{key}", real.get(key), ours.get(key))]
    return [] if real == ours else [f"{path.removeprefix('.')}: real {real!r}, ours {ours!r}"]


@dataclass(frozen=True)
class Watched:
    """The object whose history is kept.

    Attributes:
        resource: kind of the object.
        reduce: returns the part of a state that is compared, or None for a state that is not.
    """

    resource: Any
    reduce: Callable[[Object, Stage], tuple[Any, ...] | None]

    @contextlib.contextmanager
    def watching(self, stage: Stage) -> Any:
        """Watch all objects of the kind in a stage; give the list of their states, which grows."""
        states: list[Object] = []
        over = threading.Event()
        thread = threading.Thread(target=self._collect, args=(stage, states, over), daemon=True)
        thread.start()
        try:
            yield states
        finally:
            over.set()

    def _collect(self, stage: Stage, states: list[Object], over: threading.Event) -> None:
        version = None
        while not over.is_set():
            try:
                for _, obj in stage.client.watch(self.resource, resource_version=version, server_timeout=_WATCH):
                    if over.is_set():
                        return
                    states.append(obj.to_dict())
                    version = obj.metadata.resourceVersion
            except (httpx2.HTTPError, ApiError):
                version = None
