"""Scenarios of rollouts: what operators, workflows and the Pulumi program do to the endpoint of a model."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lightkube.types import PatchType

from laptop.conformance.endpoint_manifests import (
    CANARY,
    CHECK,
    MODEL,
    PING,
    PONG,
    ROOT,
    STABLE,
    EndpointManifests,
)
from laptop.conformance.scenarios import (
    AnalysisTemplate,
    Ingress,
    Object,
    Pod,
    Scenario,
    ScenarioStep,
    Service,
    ServiceAccount,
    Stage,
    act,
    create,
    delete,
    patch,
    restart,
    until,
)
from pipelines.cluster.rollouts import Rollout

_PAUSE: Object = {"pause": {}}
_MANUAL: list[Object] = [{"setWeight": 20}, _PAUSE, {"setWeight": 50}, _PAUSE]
_TIMED: list[Object] = [{"setWeight": 25}, {"pause": {"duration": "2s"}}, {"setWeight": 50}, {"pause": {"duration": 2}}]
_LIVE: Object = {"name": "live", "valueFrom": {"fieldRef": {"fieldPath": "status.canary.stablePingPong"}}}


def _analysis(live: Object) -> Object:
    arguments = [{"name": "bundle", "value": "b"}, {"name": "seconds", "value": "1"}, live]
    return {"analysis": {"templates": [{"templateName": CHECK}], "args": arguments}}


_ANALYSIS = _analysis({"name": "live", "value": "ping"})
_CHECKED: list[Object] = [{"setWeight": 50}, _ANALYSIS]
_POD_IS_BACK = 30.0  # seconds
_LOOK = 0.2  # seconds between looks
Part = ScenarioStep | Sequence[ScenarioStep]
"""Part of a scenario: one step, or several."""

_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class RolloutScenarios:
    """Builder of the scenarios of rollouts.

    Args:
        manifests: manifests of the endpoint.
    """

    def __init__(self, manifests: EndpointManifests) -> None:
        self._manifests = manifests

    # Steps

    def _stage(self, *, services: bool = True, root: str = STABLE, check: Object | None = None) -> list[ScenarioStep]:
        made = self._manifests
        steps = [create(ServiceAccount, account) for account in made.accounts()]
        if services:
            steps += [create(Service, service) for service in made.services(pair=root == ROOT)]
        steps.append(create(Ingress, made.ingress(root=root)))
        steps.append(create(AnalysisTemplate, check if check is not None else made.check()))
        return steps

    def _deploy(self, version: str, steps: Sequence[Object] = _MANUAL, **change: Any) -> ScenarioStep:
        """Deploy a version as the Pulumi program does, by server-side apply."""
        manifest = self._manifests.rollout(version, steps=list(steps), **change)

        def do(stage: Stage) -> None:
            rollout = Rollout.from_dict(manifest | {"metadata": {**manifest["metadata"], "namespace": stage.namespace}})
            stage.client.apply(rollout, field_manager="pulumi", force=True)

        return act(f"deploy {version}", do)

    def _live(self, version: str, steps: Sequence[Object] = _MANUAL, **change: Any) -> list[ScenarioStep]:
        """Deploy the first version, and wait until it is live."""
        replicas = int((change.get("spec") or {}).get("replicas", 2))
        return [
            self._deploy(version, steps, **change),
            until(phase="Healthy", current=version, pods={version: replicas}),
        ]

    def _steer(self, **status: Any) -> ScenarioStep:
        return patch(Rollout.Status, MODEL, {"status": status})

    def _promote(self) -> ScenarioStep:
        return self._steer(pauseConditions=None)

    def _paused(self, step: int, version: str, **more: Any) -> ScenarioStep:
        return until(phase="Paused", step=step, current=version, held=True, **more)

    def _done(self, version: str, replicas: int = 2) -> ScenarioStep:
        return until(phase="Healthy", stable=version, pods={version: replicas})

    # Scenarios

    def all(self) -> list[Scenario]:
        """Return every scenario."""
        return [
            *self._updates(),
            *self._aborts(),
            *self._rollbacks(),
            *self._analyses(),
            *self._shadow_steps(),
            *self._scaling(),
            *self._pauses(),
            *self._deadlines(),
            *self._features(),
            *self._invalid(),
        ]

    def _scenario(
        self, name: str, *steps: Part, stage: Mapping[str, Any] | None = None, unsteady: frozenset[str] = frozenset()
    ) -> Scenario:
        flat = [one for step in steps for one in ([step] if isinstance(step, ScenarioStep) else step)]
        return Scenario(name, [*self._stage(**(stage or {})), *flat], _RESTRICTED, unsteady)

    def _updates(self) -> list[Scenario]:
        promote_all = [self._paused(1, "v2"), self._promote(), self._paused(3, "v2"), self._promote()]
        return [
            self._scenario("first-version", self._live("v1")),
            self._scenario("update-by-hand", self._live("v1"), self._deploy("v2"), promote_all, self._done("v2")),
            self._scenario("update-in-time", self._live("v1", _TIMED), self._deploy("v2", _TIMED), self._done("v2")),
            self._scenario(
                "promote-fully",
                self._live("v1"),
                self._deploy("v2"),
                self._paused(1, "v2"),
                self._steer(promoteFull=True),
                self._done("v2"),
            ),
            self._scenario(
                "new-version-in-mid-canary",
                self._live("v1"),
                self._deploy("v2"),
                self._paused(1, "v2"),
                self._deploy("v3"),
                self._paused(1, "v3", pods={"v1": 2, "v3": 1}),
                self._steer(promoteFull=True),
                self._done("v3"),
            ),
            self._scenario("no-steps", self._live("v1", []), self._deploy("v2", []), self._done("v2")),
            self._scenario(
                "only-the-steps-change",
                self._live("v1"),
                self._deploy("v1", [{"setWeight": 10}, _PAUSE]),
                until(phase="Healthy", step=2),
            ),
            self._scenario(
                "steps-change-in-mid-canary",
                self._live("v1"),
                self._deploy("v2"),
                self._paused(1, "v2"),
                self._promote(),
                self._paused(3, "v2"),
                self._deploy("v2", [{"setWeight": 10}, _PAUSE]),
                self._paused(1, "v2", weight=10),
            ),
            self._scenario(
                "history-limit",
                self._live("v1", [], spec={"revisionHistoryLimit": 1}),
                self._deploy("v2", [], spec={"revisionHistoryLimit": 1}),
                self._done("v2"),
                self._deploy("v3", [], spec={"revisionHistoryLimit": 1}),
                self._done("v3"),
                self._deploy("v4", [], spec={"revisionHistoryLimit": 1}),
                until(phase="Healthy", stable="v4", pods={"v4": 2}, sets=lambda found: len(found) == 2),
            ),
        ]

    def _aborts(self) -> list[Scenario]:
        aborted: list[Part] = [self._live("v1"), self._deploy("v2"), self._paused(1, "v2"), self._steer(abort=True)]
        back = until(phase="Degraded", aborted=True, pods={"v1": 2})
        return [
            self._scenario("abort", *aborted, back),
            self._scenario(
                "retry-after-abort",
                *aborted,
                back,
                self._steer(abort=False),
                self._paused(1, "v2", aborted=False),
                self._steer(promoteFull=True),
                self._done("v2"),
            ),
            self._scenario("deploy-the-old-version-after-abort", *aborted, back, self._deploy("v1"), self._done("v1")),
            self._scenario(
                "deploy-a-new-version-after-abort", *aborted, back, self._deploy("v3"), self._paused(1, "v3")
            ),
            self._scenario(
                "abort-without-a-delay",
                self._live("v1", abortScaleDownDelaySeconds=0),
                self._deploy("v2", abortScaleDownDelaySeconds=0),
                self._paused(1, "v2"),
                self._steer(abort=True),
                until(phase="Degraded", pods={"v1": 2}, weight=0),
            ),
        ]

    def _rollbacks(self) -> list[Scenario]:
        wide: Object = {"rollbackWindow": {"revisions": 1}}
        replaced: list[Part] = [
            self._live("v1", spec=wide),
            self._deploy("v2", spec=wide),
            self._paused(1, "v2"),
            self._steer(promoteFull=True),
            self._done("v2"),
        ]
        return [
            self._scenario(
                "rollback-in-mid-canary",
                self._live("v1"),
                self._deploy("v2"),
                self._paused(1, "v2"),
                self._deploy("v1"),
                self._done("v1"),
            ),
            self._scenario("rollback-within-the-window", *replaced, self._deploy("v1", spec=wide), self._done("v1")),
            self._scenario(
                "rollback-within-the-window-while-the-old-pods-run",
                self._live("v1", spec=wide, scaleDownDelaySeconds=60),
                self._deploy("v2", spec=wide, scaleDownDelaySeconds=60),
                self._paused(1, "v2"),
                self._steer(promoteFull=True),
                until(phase="Healthy", stable="v2", sets=lambda found: found["v1"]["waits"]),
                self._deploy("v1", spec=wide, scaleDownDelaySeconds=3),
                self._done("v1"),
            ),
            self._scenario(
                "rollback-outside-the-window",
                *replaced,
                self._deploy("v3", spec=wide),
                self._paused(1, "v3"),
                self._steer(promoteFull=True),
                self._done("v3"),
                self._deploy("v1", spec=wide),
                self._paused(1, "v1"),
            ),
        ]

    def _analyses(self) -> list[Scenario]:
        made = self._manifests

        def checked(name: str, check: Object, *steps: ScenarioStep, plan: Sequence[Object] = _CHECKED) -> Scenario:
            update: list[Part] = [self._live("v1", plan), self._deploy("v2", plan)]
            return self._scenario(name, *update, *steps, stage={"check": check})

        failed = until(phase="Degraded", aborted=True, pods={"v1": 2})
        twice: Object = {"count": 2, "interval": "1s"}
        doubtful = {
            "count": 3,
            "interval": "1s",
            "failureLimit": 1,
            "consecutiveSuccessLimit": 2,
            "fate": "exit-second",
        }
        undecided: Object = {"consecutiveSuccessLimit": 1, "failureLimit": 1}
        runs_once = until(runs=lambda runs: [run["phase"] for run in runs] == ["Running"])
        return [
            checked("analysis-passes", made.check(), self._done("v2")),
            checked("analysis-fails", made.check(fate="exit-1"), failed),
            checked("analysis-measures-twice", made.check(twice), self._done("v2")),
            checked("analysis-tolerates-a-failure", made.check({**twice, "failureLimit": 1, "fate": "exit-second"}),
                    self._done("v2")),
            checked(
                "analysis-cannot-measure",
                made.check({"consecutiveErrorLimit": 0}, label="not valid!"),
                failed,
            ),
            checked("analysis-is-inconclusive", made.check(doubtful),
                    until(phase="Paused", pauses=["InconclusiveAnalysisRun"])),
            checked(
                "inconclusive-analysis-is-promoted",
                made.check(doubtful),
                until(phase="Paused", pauses=["InconclusiveAnalysisRun"]),
                self._steer(pauseConditions=None),
                until(phase="Paused", pauses=["InconclusiveAnalysisRun"], runs=lambda runs: len(runs) == 2),
            ),
            checked(
                "one-of-two-metrics-is-inconclusive",
                made.check({"name": "harm", "fate": "run"}, {**undecided, "name": "verdict", "fate": "exit-1"}),
                until(phase="Paused", pauses=["InconclusiveAnalysisRun"]),
            ),
            checked(
                "a-failed-metric-outweighs-one-that-would-be-inconclusive",
                made.check({"name": "harm", "fate": "exit-1"}, {**undecided, "name": "verdict", "fate": "run"}),
                failed,
            ),
            checked("a-single-success-is-enough", made.check({**undecided, "fate": "exit-0"}), self._done("v2")),
            checked("dry-run-metric-fails", made.check({"name": "good"}, {"name": "bad", "fate": "exit-1"}, dry="bad"),
                    self._done("v2")),
            checked(
                "one-of-two-metrics-fails",
                made.check({"name": "good", "fate": "run"}, {"name": "bad", "fate": "exit-1"}),
                failed,
            ),
            checked("analysis-with-limits-that-cannot-be-met", made.check({**undecided, "count": 1}), failed),
            checked("analysis-with-a-count-and-no-interval", made.check({"count": 2}), failed),
            checked("analysis-with-an-interval-without-a-unit", made.check({"count": 2, "interval": "1"}), failed),
            checked("dry-run-rule-matches-no-metric", made.check(dry="other"), failed),
            checked("analysis-without-traffic", made.check(), self._done("v2"), plan=[_ANALYSIS, {"setWeight": 50}]),
            checked(
                "abort-ends-the-analysis",
                made.check(fate="run"),
                runs_once,
                self._steer(abort=True),
                until(phase="Degraded", pods={"v1": 2}, runs=lambda runs: runs[0]["phase"] == "Successful"),
            ),
            checked(
                "new-version-ends-the-analysis",
                made.check(fate="run"),
                runs_once,
                self._deploy("v3", [{"setWeight": 50}, _PAUSE]),
                self._paused(1, "v3", runs=lambda runs: runs[0]["phase"] == "Successful"),
            ),
            checked(
                "retry-starts-another-analysis",
                made.check(fate="exit-1"),
                failed,
                self._steer(abort=False),
                until(phase="Degraded", aborted=True, pods={"v1": 2}, runs=lambda runs: len(runs) == 2),
            ),
        ]  # fmt: skip

    def _shadow_steps(self) -> list[Scenario]:
        """Return scenarios of the steps that the program declares for a model with a shadow step."""
        four: Object = {"replicas": 4}
        copying: Object = copy.deepcopy(_ANALYSIS)
        copying["analysis"]["args"].append({"name": "shadow-percent", "value": "50"})
        plan: list[Object] = [
            {"setCanaryScale": {"weight": 50}}, _PAUSE, copying,
            {"setWeight": 10}, {"setCanaryScale": {"matchTrafficWeight": True}}, _PAUSE,
            {"setWeight": 50}, _ANALYSIS, _PAUSE,
        ]  # fmt: skip

        def shadowed(name: str, fate: str, *steps: Part) -> Scenario:
            begun: list[Part] = [self._live("v1", plan, spec=four), self._deploy("v2", plan, spec=four)]
            alone = self._paused(1, "v2", pods={"v1": 4, "v2": 2}, weight=0)
            check = self._manifests.check(fate=fate)
            check["spec"]["args"].append({"name": "shadow-percent", "value": "0"})
            for metric in check["spec"]["metrics"]:
                (container,) = metric["provider"]["job"]["spec"]["template"]["spec"]["containers"]
                container["env"].append({"name": "CHECK_SHADOW_PERCENT", "value": "{{args.shadow-percent}}"})
            return self._scenario(name, *begun, alone, self._promote(), *steps, stage={"check": check})

        return [
            shadowed(
                "shadow-step-passes", "exit-0",
                self._paused(5, "v2", pods={"v1": 4, "v2": 1}, weight=10), self._promote(),
                self._paused(8, "v2", pods={"v1": 4, "v2": 2}, weight=50), self._promote(), self._done("v2", 4),
            ),
            shadowed(
                "shadow-step-fails", "exit-1",
                until(phase="Degraded", aborted=True, pods={"v1": 4}, weight=0),
            ),
        ]  # fmt: skip

    def _scaling(self) -> list[Scenario]:
        def resize(replicas: int) -> ScenarioStep:
            return patch(Rollout, MODEL, {"spec": {"replicas": replicas}})

        at_pause: list[Part] = [self._live("v1"), self._deploy("v2"), self._paused(1, "v2")]
        return [
            self._scenario("scale-up", self._live("v1"), resize(4), self._done("v1", 4)),
            self._scenario("scale-to-zero-and-back", self._live("v1"), resize(0), until(pods={}, phase="Healthy"),
                           resize(2), self._done("v1")),
            self._scenario("scale-up-in-mid-canary", *at_pause, resize(10), until(pods={"v1": 10, "v2": 2}),
                           self._promote(), self._paused(3, "v2", pods={"v1": 10, "v2": 5})),
            self._scenario(
                "scale-down-in-mid-canary",
                self._live("v1", spec={"replicas": 5}),
                self._deploy("v2", spec={"replicas": 5}),
                self._paused(1, "v2"),
                resize(2),
                until(pods={"v1": 2, "v2": 1}),
                self._steer(promoteFull=True),
                self._done("v2"),
            ),
            self._scenario("pod-is-deleted-in-mid-canary", *at_pause, act("delete a pod", _delete_a_pod("v2")),
                           self._paused(1, "v2", pods={"v1": 2, "v2": 1},
                                        counts=lambda found: found["availableReplicas"] == 3)),
        ]  # fmt: skip

    def _pauses(self) -> list[Scenario]:
        hold = patch(Rollout, MODEL, {"spec": {"paused": True}})
        go_on = patch(Rollout, MODEL, {"spec": {"paused": None}})
        at_pause: list[Part] = [self._live("v1"), self._deploy("v2"), self._paused(1, "v2")]
        timed: list[Object] = [{"setWeight": 50}, {"pause": {"duration": "12s"}}, {"setWeight": 75}, _PAUSE]
        return [
            self._scenario("hold-by-hand", *at_pause, hold, until(message="manually paused"), self._promote(),
                           until(message="manually paused", pauses=[], held=False), go_on, self._paused(1, "v2"),
                           self._promote(), self._paused(3, "v2")),
            self._scenario("hold-before-the-update", self._live("v1"), hold, until(message="manually paused"),
                           self._deploy("v2", spec={"paused": True}), until(current="v2", message="manually paused"),
                           go_on, self._paused(1, "v2")),
            self._scenario("controller-restarts-in-a-pause", *at_pause, restart(), self._promote(),
                           self._paused(3, "v2"), self._promote(), self._done("v2")),
            self._scenario("controller-restarts-in-a-timed-pause", self._live("v1", timed), self._deploy("v2", timed),
                           self._paused(1, "v2"), restart(), self._paused(3, "v2")),
            self._scenario("deletion-in-mid-canary", *at_pause, delete(Rollout, MODEL),
                           until(exists=False, pods={}, sets={}),
                           # Argo resets Services and traffic only if its cache has dropped the Rollout by then.
                           unsteady=frozenset({"services", "traffic"})),
        ]  # fmt: skip

    def _deadlines(self) -> list[Scenario]:
        short, aborting = ({"progressDeadlineSeconds": 10, "progressDeadlineAbort": abort} for abort in (False, True))
        late = until(phase="Degraded", conditions=lambda found: found["Progressing"][1] == "ProgressDeadlineExceeded")
        return [
            self._scenario("canary-never-ready", self._live("v1", spec=short),
                           self._deploy("v2", spec=short, fate="unready"), late,
                           # A later event of a pod makes Argo say for a while that it is progressing again.
                           unsteady=frozenset({"conditions", "history", "message", "phase"})),
            self._scenario("canary-never-ready-is-replaced", self._live("v1", spec=short),
                           self._deploy("v2", spec=short, fate="unready"), late, self._deploy("v1", spec=short),
                           self._done("v1")),
            self._scenario("canary-never-ready-is-aborted", self._live("v1", spec=aborting),
                           self._deploy("v2", spec=aborting, fate="unready"),
                           until(phase="Degraded", aborted=True, pods={"v1": 2},
                                 conditions=lambda found: found["Progressing"][1] == "RolloutAborted")),
            self._scenario("first-version-never-ready", self._deploy("v1", spec=short, fate="unready"), late),
            self._scenario("first-version-never-ready-is-aborted", self._deploy("v1", spec=aborting, fate="unready"),
                           late),
        ]  # fmt: skip

    def _features(self) -> list[Scenario]:
        dynamic: Object = {
            "dynamicStableScale": True,
            "scaleDownDelaySeconds": None,
            "abortScaleDownDelaySeconds": None,
        }
        four: Object = {"replicas": 4}
        pair: Object = {"pingPong": {"pingService": PING, "pongService": PONG}}
        told = [{"setWeight": 50}, _analysis(_LIVE)]
        scales: list[Object] = [
            {"setCanaryScale": {"replicas": 3}}, {"setWeight": 10}, _PAUSE,
            {"setCanaryScale": {"weight": 25}}, _PAUSE,
            {"setCanaryScale": {"matchTrafficWeight": True}}, {"setWeight": 50}, _PAUSE,
        ]  # fmt: skip
        return [
            self._scenario(
                "canary-scale", self._live("v1", scales, spec=four), self._deploy("v2", scales, spec=four),
                self._paused(2, "v2", pods={"v1": 4, "v2": 3}), self._promote(),
                self._paused(4, "v2", pods={"v1": 4, "v2": 1}), self._promote(),
                self._paused(7, "v2", pods={"v1": 4, "v2": 2}), self._promote(), self._done("v2", 4),
            ),
            self._scenario(
                "stable-pods-follow-the-traffic", self._live("v1", spec=four, **dynamic),
                self._deploy("v2", spec=four, **dynamic), self._paused(1, "v2", pods={"v1": 4, "v2": 1}),
                self._promote(), self._paused(3, "v2", pods={"v1": 2, "v2": 2}), self._promote(), self._done("v2", 4),
            ),
            self._scenario(
                "abort-while-stable-pods-follow-the-traffic", self._live("v1", spec=four, **dynamic),
                self._deploy("v2", spec=four, **dynamic), self._paused(1, "v2"), self._promote(),
                self._paused(3, "v2", pods={"v1": 2, "v2": 2}), self._steer(abort=True),
                until(phase="Degraded", weight=0, pods={"v1": 4}),
            ),
            self._scenario(
                "rollback-while-stable-pods-follow-the-traffic", self._live("v1", spec=four, **dynamic),
                self._deploy("v2", spec=four, **dynamic), self._paused(1, "v2"), self._promote(),
                self._paused(3, "v2", pods={"v1": 2, "v2": 2}), self._deploy("v1", spec=four, **dynamic),
                self._done("v1", 4),
                # Argo may look at the Rollout between the last pod and the last weight, or not.
                unsteady=frozenset({"history"}),
            ),
            self._scenario(
                "least-pods", self._live("v1", spec=four, minPodsPerReplicaSet=2),
                self._deploy("v2", spec=four, minPodsPerReplicaSet=2), self._paused(1, "v2", pods={"v1": 4, "v2": 2}),
            ),
            self._scenario(
                "ping-pong", self._live("v1", **pair), self._deploy("v2", **pair), self._paused(1, "v2"),
                self._steer(promoteFull=True), self._done("v2"), self._deploy("v3", **pair), self._paused(1, "v3"),
                stage={"root": ROOT},
            ),
            self._scenario(
                "check-is-told-which-service-is-live", self._live("v1", told, **pair), self._deploy("v2", told, **pair),
                self._done("v2"), self._deploy("v3", told, **pair), self._done("v3"), stage={"root": ROOT},
            ),
            self._scenario(
                "restart-of-pods", self._live("v1", maxUnavailable=2), act("restart the pods", _restart_pods),
                until(restarted=True, phase="Healthy"),
            ),
        ]  # fmt: skip

    def _invalid(self) -> list[Scenario]:
        invalid = until(phase="Degraded", conditions=lambda found: "InvalidSpec" in found)
        made = self._manifests
        services = [create(Service, service) for service in made.services()]
        plan: list[Object] = [{"analysis": {"templates": [{"templateName": "other"}]}}]
        unknown = made.check()
        unknown["spec"]["args"] = []
        strangers: Object = {"selector": {"matchLabels": {"stranger": "yes"}}}
        return [
            self._scenario("service-is-missing", self._deploy("v1"), invalid, stage={"services": False}),
            self._scenario("service-comes-late", self._deploy("v1"), invalid, services, self._done("v1"),
                           stage={"services": False}),
            self._scenario("template-is-missing", self._deploy("v1", plan), invalid),
            self._scenario("ingress-leads-elsewhere", self._deploy("v1"), invalid, stage={"root": CANARY}),
            self._scenario("dynamic-scale-with-a-delay", self._deploy("v1", dynamicStableScale=True), invalid),
            self._scenario("one-service-for-both", self._deploy("v1", canaryService=STABLE), invalid),
            self._scenario("argument-is-missing", self._deploy("v1", [{"analysis": {
                "templates": [{"templateName": CHECK}]}}]), invalid),
            self._scenario("placeholder-without-an-argument", self._deploy("v1", _CHECKED), invalid,
                           stage={"check": unknown}),
            self._scenario("two-metrics-with-one-name", self._deploy("v1", _CHECKED), invalid,
                           stage={"check": made.check({}, {})}),
            self._scenario("metric-without-an-end", self._deploy("v1", _CHECKED), invalid,
                           stage={"check": made.check({"interval": "1s"})}),
            self._scenario("step-that-does-two-things", self._deploy("v1", [{"setWeight": 10, "pause": {}}]), invalid),
            self._scenario("step-that-does-nothing", self._deploy("v1", [{"setWeight": 10}, {}]), invalid),
            self._scenario("weight-above-all-traffic", self._deploy("v1", [{"setWeight": 101}]), invalid),
            self._scenario("pause-without-a-duration", self._deploy("v1", [{"pause": {"duration": "soon"}}]), invalid),
            self._scenario("no-surge-and-none-unavailable", self._deploy("v1", maxSurge=0, maxUnavailable=0), invalid),
            self._scenario("selector-of-other-pods", self._deploy("v1", spec=strangers), invalid),
        ]  # fmt: skip


def _delete_a_pod(version: str) -> Callable[[Stage], None]:
    """Return an act that deletes a pod of a version, and waits until another is ready."""

    def ready(stage: Stage) -> set[str]:
        pods = [pod for pod in stage.find_all(Pod) if pod["metadata"]["labels"].get("version") == version]
        conditions = {
            pod["metadata"]["name"]: {one["type"]: one["status"] for one in pod["status"].get("conditions") or ()}
            for pod in pods
        }
        return {name for name, found in conditions.items() if found.get("Ready") == "True"}

    def do(stage: Stage) -> None:
        before = ready(stage)
        stage.client.delete(Pod, min(before))
        deadline = time.monotonic() + _POD_IS_BACK
        while not ready(stage) - before and time.monotonic() < deadline:
            time.sleep(_LOOK)

    return do


def _restart_pods(stage: Stage) -> None:
    """Ask for pods that are younger than those that run; times have whole seconds."""
    newest = max(datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in stage.find_all(Pod))
    at = (newest + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    stage.client.patch(Rollout, MODEL, {"spec": {"restartAt": at}}, patch_type=PatchType.MERGE)
