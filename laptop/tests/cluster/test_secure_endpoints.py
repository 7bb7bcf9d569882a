"""HTTPS listeners of load balancers, and who may connect to them and to the pods."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.aws import account as aws
from laptop.aws.cloud import Cloud
from laptop.cluster.kinds import EVENT, INGRESS, JOB, NETWORK_POLICY, ROLLOUT, SERVICE
from laptop.cluster.private_network import proxy_for_groups
from laptop.delays import realistic
from laptop.tests.aws.certificates import import_certificate
from laptop.tests.cluster.running_cluster import (
    RunningCluster,
    SetClock,
    job,
    new_namespace,
    phase,
    rollout,
    wait_for,
)
from laptop.tests.cluster.test_realistic_cluster import PING_PONG

pytestmark = pytest.mark.slow

HOST, DOMAIN = "m.models.example.com", "models.example.com"
NOWHERE = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
CALL = """
import json, os, urllib.error, urllib.request
try:
    print(json.load(urllib.request.urlopen("http://m-ping.{namespace}.svc/", timeout=10))["version"])
except urllib.error.HTTPError as error:
    print(json.load(error)["error"])
"""


def taking_turns(made: dict[str, Any]) -> dict[str, Any]:
    """Return a Rollout whose Services take turns, as those of the program do."""
    canary = made["spec"]["strategy"]["canary"]
    for key in ("stableService", "canaryService"):
        del canary[key]
    canary |= PING_PONG
    canary["trafficRouting"]["alb"]["rootService"] = "m-ping"
    return made


class Site:
    """A realistic cluster with an account, and a release behind an Ingress."""

    def __init__(self, folder: Path) -> None:
        (folder / "home").mkdir(parents=True)
        realistic(["iam-policy=0"]).write(folder / "home")
        self.account = aws.start(folder / "home" / "aws")
        self.clock = SetClock()
        self.eks = RunningCluster(folder, time_scale=0.01, delays=realistic(["image-pull=0"]), clock=self.clock)

    def close(self) -> None:
        self.eks.close()
        self.account.stop()

    def client(self, service: str) -> Any:
        return Cloud(self.account.environ(), self.account.home).client(service)

    def import_certificate(self, name: str) -> str:
        """Import a certificate for a name to the account; return its ARN."""
        return import_certificate(self.client("acm"), name)

    def security_group(self, name: str, *allowed: str) -> str:
        """Create a security group whose members of other groups may connect to port 443; return its id."""
        ec2 = self.client("ec2")
        group = str(ec2.create_security_group(GroupName=name, Description=name)["GroupId"])
        for other in allowed:
            rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": other}]}
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        return group

    def release(self, namespace: str, manifest: dict[str, Any] | None = None, **annotations: str) -> None:
        """Serve a release by HTTPS at HOST; its Rollout is `manifest`, or one of `m` that answers `v1`."""
        for name in ("m-ping", "m-pong"):
            ports = [{"name": "http", "port": 80, "targetPort": "http"}]
            spec = {"selector": {"app": "m"}, "ports": ports}
            self.eks.create(SERVICE, namespace, {"metadata": {"name": name}, "spec": spec})
        named = {f"alb.ingress.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        backend = {"service": {"name": "m-ping", "port": {"name": "use-annotation"}}}
        rule = {"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        metadata = {"name": "m", "annotations": {"alb.ingress.kubernetes.io/listen-ports": '[{"HTTPS": 443}]', **named}}
        self.eks.create(INGRESS, namespace, {"metadata": metadata, "spec": {"rules": [rule]}})
        self.eks.create(ROLLOUT, namespace, manifest or taking_turns(rollout("v1", [], replicas=1)))
        phase(self.eks, namespace, "Healthy")
        self.clock.pass_time(1000)

    def ask(self, url: str, *groups: str) -> str:
        """Send a request from inside of the private network; return the version, or the problem."""
        proxy = str(json.loads((self.eks.home / "cluster" / "cluster.json").read_text())["proxy"])
        proxy = proxy_for_groups(proxy, groups)
        trusting = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self.eks.authority)))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy, "https": proxy}), trusting)
        try:
            with opener.open(url, timeout=10) as answer:
                return str(json.load(answer)["version"])
        except urllib.error.HTTPError as error:
            return f"{error.code}: {json.load(error)['error']}"
        except urllib.error.URLError as error:
            return str(error.reason)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_certificate_makes_https_the_only_way_in(site: Site) -> None:
    namespace = new_namespace(site.eks, "secure")
    site.release(namespace, certificate_arn=site.import_certificate(f"*.{DOMAIN}"))
    wait_for(lambda: site.ask(f"https://{HOST}/") == "v1")
    assert site.ask(f"http://{HOST}/") == (
        f"504: {HOST}: the connection timed out: the load balancer has no listener for HTTP on port 80"
    )
    (balancer,) = site.client("elbv2").describe_load_balancers()["LoadBalancers"]
    address = balancer["DNSName"]
    # The certificate is for names of the domain, not for that of the load balancer.
    assert "certificate is not valid for" in site.ask(f"https://{address}/")
    (listener,) = site.client("elbv2").describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert (listener["Protocol"], listener["Port"]) == ("HTTPS", 443)


def test_without_its_certificate_a_load_balancer_does_not_listen_and_events_say_so(site: Site) -> None:
    namespace = new_namespace(site.eks, "missing")
    site.release(namespace, certificate_arn=NOWHERE)
    found = wait_for(
        lambda: [event["message"] for event in site.eks.find_all(EVENT, namespace) if "Deploy" in event["reason"]]
    )
    assert NOWHERE in found[0]
    assert "has no certificate" in site.ask(f"https://{HOST}/")
    (balancer,) = site.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert site.client("elbv2").describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"] == []


def test_security_groups_refuse_everybody_whom_no_rule_names(site: Site) -> None:
    namespace = new_namespace(site.eks, "groups")
    callers, others = site.security_group("callers"), site.security_group("others")
    balancer = site.security_group("balancer", callers)
    arn = site.import_certificate(HOST)
    site.release(namespace, certificate_arn=arn, security_groups=balancer)
    wait_for(lambda: site.ask(f"https://{HOST}/", callers) == "v1")
    for groups in ((), (others,)):
        assert f"no inbound rule of {balancer} lets the caller" in site.ask(f"https://{HOST}/", *groups)


def test_only_pods_that_a_policy_names_reach_the_pods_past_the_load_balancer(site: Site) -> None:
    namespace = new_namespace(site.eks, "policies")
    site.release(namespace, certificate_arn=site.import_certificate(HOST))
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "friends"}}}
    balancers = {"ipBlock": {"cidr": "10.0.240.0/24"}}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer, balancers]}]}
    site.eks.create(NETWORK_POLICY, namespace, {"metadata": {"name": "named"}, "spec": spec})
    said = {}
    for name in ("friends", "strangers"):
        new_namespace(site.eks, name)
        site.eks.create(JOB, name, job("call", CALL.format(namespace=namespace)))
        site.eks.ended(name, "call")
        (pod,) = site.eks.pods_of(name, "call")
        said[name] = site.eks.log(name, pod["metadata"]["name"]).strip()
    assert said["friends"] == "v1"
    assert "the NetworkPolicy named does not let the pod strangers/call-" in said["strangers"]
    wait_for(lambda: site.ask(f"https://{HOST}/") == "v1")
    spec["ingress"] = [{"from": [peer]}]
    site.eks.merge(NETWORK_POLICY, namespace, "named", {"spec": spec})
    assert "the NetworkPolicy named does not let the caller at 10.0.240.10" in site.ask(f"https://{HOST}/")


def test_a_pod_connects_only_to_whom_its_policies_name(site: Site) -> None:
    namespace = new_namespace(site.eks, "serves")
    site.release(namespace, certificate_arn=site.import_certificate(HOST))
    systems = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    dns = {"to": [systems], "ports": [{"protocol": "UDP", "port": 53}]}
    pods = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]}
    said = {}
    for name, rules in {"mute": [pods], "by-name": [dns], "both": [dns, pods]}.items():
        new_namespace(site.eks, name)
        spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": rules}
        site.eks.create(NETWORK_POLICY, name, {"metadata": {"name": "leaves"}, "spec": spec})
        site.eks.create(JOB, name, job("call", CALL.format(namespace=namespace)))
        site.eks.ended(name, "call")
        (pod,) = site.eks.pods_of(name, "call")
        said[name] = site.eks.log(name, pod["metadata"]["name"]).strip()
    assert said["both"] == "v1"
    assert "the look-up of the name timed out: the NetworkPolicy leaves does not let" in said["mute"]
    assert "the NetworkPolicy leaves does not let the pod by-name/call-" in said["by-name"]
    assert f"connect to {namespace}/m-" in said["by-name"]
