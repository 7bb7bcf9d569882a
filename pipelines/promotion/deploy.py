"""Deploy an environment: judge its releases, apply, follow the rollouts, verify, and record.

Every step is idempotent, so an interrupted deployment can be run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from pipelines.cluster.canary_logs import reason_of_check
from pipelines.cluster.pod_credentials import replacing_pods_without_credentials
from pipelines.cluster.pod_logs import WORKLOAD
from pipelines.cluster.rollout_pods import why_not_ready
from pipelines.cluster.rollouts import (
    FailedRolloutError,
    InconclusiveCanaryError,
    OvertakenError,
    RolloutState,
    check_canary_again,
    wait_for_rollout,
)
from pipelines.data.lineage import bundle_data, endpoint_data, lineage
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import serving_name
from pipelines.declarations.release import Release
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.promotion.admission import Admitted, admit
from pipelines.promotion.attempt import Attempt, Attribution, Log, calling_actor
from pipelines.promotion.disagreement import SYNC
from pipelines.promotion.facts.gather import ReleaseChange
from pipelines.promotion.pinning import admit_pins, record_pins
from pipelines.promotion.predecessor_access import check_predecessor_access
from pipelines.promotion.replicate import replicate
from pipelines.promotion.rollback_plan import plan_rollback, read_facts_of_traffic
from pipelines.promotion.traffic import move_traffic, wait_until_served
from pipelines.promotion.traffic_lease import TrafficHold, hold_traffic
from pipelines.promotion.verify import Verification, verify
from pipelines.promotion.withdrawal import check_withdrawal, record_withdrawal
from pipelines.registry.ledger import Entry
from pipelines.targets import Target

ROLLOUT_ALLOWANCE_SECONDS = 900
"""Time allowed for a rollout in addition to its declared pauses and waits.

Pods may need a new node, and those of the first release also a new load balancer. The controller gives up on them first
(`PROGRESS_SECONDS` of the endpoint), so that the error says why they are not ready.
"""


def deploy(target: Target, environment: str, log: Log, *, create: bool = False) -> None:
    """Deploy the releases of an environment, and record each one that goes live.

    Every release is judged before anything is applied, because one `up` applies all of them.

    Args:
        target: where the environment lives.
        environment: its name.
        log: receives progress.
        create: create the environment if it was never brought up; otherwise nothing is done for it.

    Raises:
        MlopsError: a release or an image was refused, the program failed, a rollout did not become healthy, or a model
            is live that its release neither names nor withdraws.
    """
    project, git = target.project, Git(target.project.root)
    if not target.is_up(environment):
        if not create:
            log(
                f"{environment} was never brought up, so nothing is deployed. To create it, run mlops up --env "
                f"{environment}, or the workflow deploy with `create`"
            )
            return
        # Images and releases can only be judged once the environment has a registry, so they come later.
        target.apply("up", environment, foundation_only=True)
        log(f"{environment} is created, without images and releases: the gates judge them now")
    target.get_ready()
    descriptors = target.descriptors()
    previous = descriptors.get(project.stack(environment).config.environment.promotes_from or "")
    if previous is not None:
        check_predecessor_access(previous, environment)
    admit_pins(project, git, descriptors, environment, log)
    releases = [project.release(model, environment) for model in project.model_names]
    withdrawn = [release for release in releases if release.bundle is None]
    for release in withdrawn:
        freezes = project.stack(environment).config.environment.freezes
        check_withdrawal(descriptors[environment], release, freezes, datetime.now(UTC))
    releases = [release for release in releases if release.bundle is not None]
    with ExitStack() as stack:
        # Judged while the leases are held: a rollback that starts later takes the lease, which is noticed.
        holds = {
            release.model: stack.enter_context(
                hold_traffic(descriptors[environment], release.model, "deploy", project.root, log)
            )
            for release in releases
        }
        admitted = [admit(project, git, descriptors, *find_merge(git, release), log) for release in releases]
        deployment = ReleaseDeployment(target, environment, descriptors, log, holds)
        if not admitted:
            deployment.apply()
        for each in admitted:
            entry = deployment.take_live(each)
            url = target.descriptor(environment).endpoints[each.release.model]
            log(
                f"{each.release.model} in {environment} serves {each.release.bundle} at {url} "
                f"(ledger record {entry.record.number})"
            )
        record_pins(target.descriptor(environment), [each.release.model for each in admitted])
        for release in withdrawn:
            if release.replaces is not None:
                deployment.apply()
                withdrawal = record_withdrawal(descriptors[environment], release, find_merge(git, release)[1])
                if withdrawal is not None:
                    log(f"{release.model} is withdrawn from {environment} (ledger record {withdrawal.record.number})")


def find_merge(git: Git, release: Release) -> tuple[ReleaseChange, Attribution]:
    """Return the merge that brought a release to main: its files, author and approvers.

    Raises:
        MlopsError: the release file is not committed.
    """
    commit = git.last_change(f"models/{release.model}/releases/{release.environment}.yaml")
    merge = pull_requests.find_merge(Gh.find(git.root), commit) if os.environ.get("GITHUB_REPOSITORY") else None
    attribution = Attribution(
        commit=commit,
        actor=merge.author if merge else calling_actor(),
        run=run_url(),
        pull_request=merge.number if merge else None,
        approvers=merge.approvers if merge else (),
    )
    return ReleaseChange(release, git.changed_files(f"{commit}^", commit)), attribution


@dataclass
class ReleaseDeployment:
    """One deployment of an environment; applies the Pulumi program at most once.

    Attributes:
        target: where the environment lives.
        environment: its name.
        descriptors: of the environments that are up.
        log: receives progress.
        holds: model → the lease of its traffic, for each model with a release.
    """

    target: Target
    environment: str
    descriptors: Mapping[str, EnvironmentDescriptor]
    log: Log
    holds: Mapping[str, TrafficHold]
    _applied: bool = field(default=False, init=False)

    def apply(self) -> None:
        """Apply the environment's program, unless this deployment has already applied it.

        Raises:
            MlopsError: the program failed.
        """
        if self._applied:
            return
        self.target.apply("up", self.environment)
        self._applied = True
        self.log("applied")
        for model in sorted(self.holds):
            self._respect_rollback(model)

    def _respect_rollback(self, model: str) -> None:
        """If a rollback took the lease while the program was applied, put back what it restored.

        The program may have written the bad bundle after the rollback had ended.
        """
        try:
            self.holds[model].confirm()
        except OvertakenError as overtaken:
            self.log(f"{model}: {overtaken.what}")
            project, descriptor = self.target.project, self.target.descriptor(self.environment)
            with hold_traffic(descriptor, model, "deploy", project.root, self.log):
                facts = read_facts_of_traffic(project, descriptor, model)
                if facts.on_trial is not None and facts.on_trial in facts.quarantined:
                    good = plan_rollback(facts, model, self.environment).good
                    move_traffic(descriptor, model, good)
                    self.log(f"{model} returned to {good}: this deployment had applied the bundle that was rolled back")

    def take_live(self, admitted: Admitted) -> Entry:
        """Copy the bundle, apply, follow the rollout, verify, and only then record the release.

        A release that is live already is applied and verified again, but not recorded again.

        Returns:
            The ledger entry that records the bundle as live.

        Raises:
            StaleReleaseError: another bundle went live during the rollout.
            OvertakenError: a rollback or a stop took the traffic over. Nothing is recorded or moved.
            InconclusiveCanaryError: a canary check had no verdict. Nothing is recorded or moved.
            MlopsError: a step failed. The failure is recorded, and traffic returned to the bundle that was live.
        """
        release = admitted.release
        assert release.bundle is not None
        hold = self.holds[release.model]
        if admitted.recorded is not None:
            self._prove(release)
            return admitted.recorded
        descriptor = self.descriptors[self.environment]
        bundle = bundle_data(descriptor, release.model, version=release.bundle)
        endpoint = endpoint_data(descriptor, release.model, version=release.bundle)
        with lineage(descriptor, f"deploy-{release.model}", [bundle], [endpoint]):
            return self._take_live(admitted, hold)

    def _take_live(self, admitted: Admitted, hold: TrafficHold) -> Entry:
        release, attempt = admitted.release, admitted.attempt
        assert release.bundle is not None
        previous = self.target.project.stack(self.environment).config.environment.promotes_from
        if previous is not None:
            with _recording_failure(attempt, hold):
                replicate(self.descriptors[previous], self.descriptors[self.environment], release.model, release.bundle)
            self.log(f"the bundle is in the registry of {self.environment}")
        with _recording_failure(attempt, hold, lambda: self._return_traffic(release.model, admitted.live)):
            proof = self._prove(release)
            hold.confirm()
        self.log(
            f"verified: {proof.pods} pods, {proof.rows} golden rows match, {proof.requests} requests, median "
            f"{proof.median_ms:.1f} ms"
        )
        return attempt.record("verified", attempt.reason)

    def _prove(self, release: Release) -> Verification:
        """Apply, follow the rollout, and verify what the endpoint serves."""
        assert release.bundle is not None
        self.apply()
        check = self.holds[release.model].check
        check()
        namespace = self.target.project.stack(self.environment).config.environment.namespace
        with replacing_pods_without_credentials(namespace, release.model, self.log):
            follow_rollout(self.target, self.environment, release.model, release.bundle, self.log, check)
        self.log("rolled out")
        budget = self.target.project.model(release.model).gates.latency.p99_ms
        descriptor = self.target.descriptor(self.environment)
        wait_until_served(descriptor, release.model, release.bundle, check=check)
        return verify(descriptor, release.model, release.bundle, budget, self.log)

    def _return_traffic(self, model: str, live: str | None) -> str:
        """Return traffic to the bundle that was live. If that fails, return a note for the record, else ""."""
        if live is None:
            return ""
        try:
            move_traffic(self.target.descriptor(self.environment), model, live, check=self.holds[model].check)
        except MlopsError as error:
            return f"; and traffic could not be returned: {error.what}"
        self.log(f"traffic returned to {live}")
        return ""


@contextmanager
def _recording_failure(attempt: Attempt, hold: TrafficHold, undo: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Record the attempt as failed if the block fails; `undo` runs first, and its result is added to the reason.

    If a rollback or a stop has taken the traffic over, neither happens: it records and moves what is needed. A canary
    without a verdict stays on trial, for a person to decide.
    """
    try:
        yield
    except (OvertakenError, InconclusiveCanaryError):
        raise
    except MlopsError as error:
        _confirm_if_possible(hold)
        attempt.record("failed", error.what + undo())
        raise


def _confirm_if_possible(hold: TrafficHold) -> None:
    """Confirm that the lease is held; without an answer of the cluster, no other command can have moved traffic.

    Raises:
        OvertakenError: another command has taken it.
    """
    try:
        hold.confirm()
    except OvertakenError:
        raise
    except MlopsError:
        return


def follow_rollout(
    target: Target, environment: str, model: str, bundle: str, log: Log, check: Callable[[], None]
) -> None:
    """Wait until the newest release of a model is live, and log each step of its rollout.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        bundle: digest of the bundle that goes live.
        log: receives progress.
        check: called while waiting; what it raises ends the wait.

    Raises:
        OvertakenError: another command changed the bundle.
        InconclusiveCanaryError: a canary check had no verdict.
        FailedRolloutError: the rollout failed.
        MlopsError: the rollout did not end in time.
    """
    config, serving = target.project.stack(environment).config.environment, target.project.model(model).serving
    namespace = config.namespace
    pauses = config.canary.on_inconclusive == "pause"
    longest = sum(seconds + (serving.canary.wait_seconds if pauses else 0) for seconds in serving.check_seconds)
    on_change = partial(_log_state, model, log)
    if check_canary_again(namespace, model, bundle):
        log(f"rollout {model}: the canary is checked again")
    try:
        wait_for_rollout(
            namespace,
            model,
            bundle,
            on_change=on_change,
            deadline_seconds=ROLLOUT_ALLOWANCE_SECONDS + longest,
            check=check,
        )
    except InconclusiveCanaryError as error:
        why = reason_of_check(namespace, model, bundle, "inconclusive")
        raise InconclusiveCanaryError(error.what + (f": {why}" if why else ""), fix=error.fix) from None
    except FailedRolloutError as error:
        why = reason_of_check(namespace, model, bundle, "failed")
        found = f"the canary check says: {why}" if why else why_not_ready(namespace, model, bundle)
        look = f"kubectl -n {namespace} describe pods -l {WORKLOAD}={serving_name(model)}"
        agree = f"release another bundle, or propose what is live ({SYNC})"
        raise FailedRolloutError(
            error.what + (f"; {found}" if found else ""),
            fix=agree if why else f"see why the pods are not ready: {look}. Then deploy again, or {agree}",
        ) from None


def _log_state(model: str, log: Log, state: RolloutState) -> None:
    weight = f", {state.weight} % of traffic to the new pods" if state.weight else ""
    log(f"rollout {model}: {state.phase}{weight}" + (f" ({state.message})" if state.message else ""))
