"""Errors of a deployment whose load balancer never becomes active, or whose pods never become healthy targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.cluster.kinds import ROLLOUT
from laptop.faults import Faults
from laptop.tests.cluster.running_cluster import new_namespace, rollout
from laptop.tests.cluster.test_realistic_cluster import INJECT
from laptop.tests.cluster.test_secure_endpoints import HOST, Site, taking_turns
from pipelines.cluster.load_balancer import NotYetError, await_load_balancer
from pipelines.cluster.pod_logs import WORKLOAD
from pipelines.cluster.rollout_pods import why_not_ready
from pipelines.cluster.rollouts import FailedRolloutError, wait_for_rollout
from pipelines.declarations.names import serving_name

pytestmark = pytest.mark.slow

B1, B2 = ("sha256:" + letter * 64 for letter in "ab")
FOR_LONG = 3600.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path)
    for name, value in made.account.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(made.eks.home / "kubeconfig"))
    yield made
    made.close()


def served(bundle: str) -> dict[str, Any]:
    """Return a Rollout that serves a bundle, as the program names it and its pods."""
    made = rollout("x", [{"setWeight": 50}, {"pause": {}}], replicas=1, progressDeadlineSeconds=2)
    made["spec"]["progressDeadlineAbort"] = True
    made["spec"]["strategy"]["canary"]["abortScaleDownDelaySeconds"] = 3600
    template = made["spec"]["template"]
    template["metadata"]["labels"][WORKLOAD] = serving_name("m")
    template["spec"]["containers"][0]["command"] += ["--bundle", bundle]
    return taking_turns(made)


def follow(namespace: str, bundle: str) -> None:
    wait_for_rollout(namespace, "m", bundle, on_change=lambda _: None, deadline_seconds=60)


def test_a_deployment_does_not_wait_for_ever_for_a_load_balancer(site: Site) -> None:
    namespace = new_namespace(site.eks, "stuck")
    Faults(site.eks.home).inject("load-balancer-stuck", FOR_LONG)
    site.release(namespace, certificate_arn=site.import_certificate(HOST))
    said: list[str] = []
    with pytest.raises(NotYetError) as caught:
        await_load_balancer(namespace, "m", site.account.region, said.append, deadline_seconds=1)
    assert f"the load balancer of m in {namespace} is not there yet after" in caught.value.what
    assert "the load balancer is provisioning; expected active" in caught.value.what
    assert caught.value.fix.startswith(f"see its events: kubectl -n {namespace} describe ingress m. Then deploy again")


def test_a_release_whose_pods_never_become_healthy_is_aborted_and_says_why(site: Site) -> None:
    namespace = new_namespace(site.eks, "unhealthy", INJECT)
    site.release(namespace, manifest=served(B1), certificate_arn=site.import_certificate(HOST))
    follow(namespace, B1)
    Faults(site.eks.home).inject("targets-stuck", FOR_LONG)
    site.eks.merge(ROLLOUT, namespace, "m", {"spec": {"template": served(B2)["spec"]["template"]}})
    with pytest.raises(FailedRolloutError, match=f"the rollout of m in {namespace} failed: RolloutAborted"):
        follow(namespace, B2)
    assert "is not ready: its readiness gate target-health.elbv2.k8s.aws/" in why_not_ready(namespace, "m", B2)
    assert why_not_ready(namespace, "m", B1) == ""
