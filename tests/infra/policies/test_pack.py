"""The policy pack reports the same violations as the rules."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc
from pulumi_policy import (
    EnforcementLevel,
    PolicyCustomTimeouts,
    PolicyResource,
    PolicyResourceOptions,
    StackValidationArgs,
)
from pulumi_policy.proxy import unknown_checking_proxy

from infra.policies import RULES, violations
from infra.policies.pack import policies
from tests.infra.policies.examples import BUCKET_POLICY, EXAMPLES, Resources, put
from tests.infra.recording import ROOT, Recording

pytestmark = pytest.mark.slow

UNKNOWN_STRING = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
PACK = {policy.name: policy for policy in policies()}


def stack_arguments(resources: Resources) -> StackValidationArgs:
    given = {}
    for one in resources:
        options = PolicyResourceOptions(one.protect, [], None, [], PolicyCustomTimeouts(0, 0, 0), [])
        props: Any = unknown_checking_proxy(dict(one.props))
        given[one.urn] = PolicyResource(one.type, props, one.urn, one.name, options, None, None, [], {})
    for one in resources:
        given[one.urn].parent = given.get(one.parent)
    return StackValidationArgs(list(given.values()))


def reported(name: str, resources: Resources) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []

    def report(message: str, urn: str | None = None) -> None:
        found.append((message, urn))

    PACK[name].validate(stack_arguments(resources), report)
    return found


def test_every_rule_is_a_mandatory_policy() -> None:
    assert set(PACK) == {rule.id for rule in RULES}
    assert {policy.enforcement_level for policy in PACK.values()} == {EnforcementLevel.MANDATORY}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_pack_reports_the_violations_of_a_rule(rule: Any) -> None:
    for example in (EXAMPLES[rule.id].keeps, EXAMPLES[rule.id].breaks[0]):
        found = violations(example, [rule])
        assert reported(rule.id, example) == [(f"{v.resource}: {v.found}", v.urn) for v in found]


def test_every_environment_passes_the_pack(graph: Recording) -> None:
    assert [found for name in PACK for found in reported(name, graph.resources)] == []


def test_unknown_values_are_neither_violations_nor_errors() -> None:
    hidden = put(EXAMPLES["s3-tls-only"].keeps, BUCKET_POLICY, "policy", value=UNKNOWN_STRING)
    assert reported("s3-tls-only", hidden) == []


def test_pulumi_can_start_the_pack_and_analyze_a_stack() -> None:
    """Do as the Pulumi CLI does: run the folder, read the port from its first line, and call it."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "infra" / "policies")],
        stdout=subprocess.PIPE,
        cwd=ROOT / "infra" / "policies",
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            analyzer = analyzer_pb2_grpc.AnalyzerStub(channel)
            info = analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=30)
            assert {policy.name for policy in info.policies} == set(PACK)
            broken = EXAMPLES["kms-rotated"].breaks[0]
            request = analyzer_pb2.AnalyzeStackRequest()
            for one in broken:
                given = request.resources.add(type=one.type, urn=one.urn, name=one.name, parent=one.parent)
                given.options.protect = one.protect
                given.properties.update(dict(one.props))
            answer = analyzer.AnalyzeStack(request, timeout=30)
        assert {diagnostic.policyName for diagnostic in answer.diagnostics} == {"kms-rotated"}
        assert {diagnostic.enforcementLevel for diagnostic in answer.diagnostics} == {analyzer_pb2.MANDATORY}
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
