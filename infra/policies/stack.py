"""Rules for the graph as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.resource_graph import PROVIDERS, UNKNOWN, Graph
from infra.policies.rule import Finding, rule

TAGS = ("owner", "environment", "model", "cost-centre")
"""Tags that every taggable resource must have."""

TAGGABLE = (
    "aws:s3/bucket:Bucket",
    "aws:kms/key:Key",
    "aws:glue/catalogDatabase:CatalogDatabase",
    "aws:ecr/repository:Repository",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:cloudwatch/eventRule:EventRule",
    "aws:sqs/queue:Queue",
    "aws:iam/role:Role",
    "aws:iam/policy:Policy",
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
)
"""Taggable types, among those that the programs use."""

STATEFUL = (
    "aws:s3/bucket:Bucket",
    "aws:kms/key:Key",
    "aws:glue/catalogDatabase:CatalogDatabase",
    "aws:glue/catalogTable:CatalogTable",
    "aws:ecr/repository:Repository",
    "kubernetes:core/v1:Namespace",
    "kubernetes:core/v1:PersistentVolumeClaim",
)
"""Types that hold data which cannot be recreated."""


@rule("parent-is-component", "Every resource belongs to a component")
def parent_is_component(graph: Graph) -> Iterator[Finding]:
    for resource in graph.resources:
        if resource.package not in PROVIDERS:
            continue
        parent = graph.by_urn.get(resource.parent)
        if parent is None or parent.package in (*PROVIDERS, "pulumi"):
            yield resource, "belongs to no component"


@rule("tagged", "Every taggable resource has the tags owner, environment, model and cost-centre")
def tagged(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(*TAGGABLE):
        for tag in TAGS:
            if not resource.at("tags", tag):
                yield resource, f"has no tag {tag}"
    environments = {resource.at("tags", "environment") for resource in graph.of_type(*TAGGABLE)} - {None, UNKNOWN}
    if len(environments) > 1:
        for resource in graph.of_type(*TAGGABLE):
            yield (
                resource,
                f"is tagged with the environment {resource.at('tags', 'environment')}, other resources with others",
            )


@rule("state-protected", "Stateful resources are protected, unless the environment is disposable")
def state_protected(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(*STATEFUL):
        if not (resource.protect or graph.disposable):
            yield resource, "is not protected"


@rule("exemption-has-reason", "An exemption names a rule and gives a reason")
def exemption_has_reason(graph: Graph) -> Iterator[Finding]:
    from infra.policies import RULES  # the list that this rule is on

    known = {one.id for one in RULES}
    for resource in graph.resources:
        for name, reason in resource.exemptions.items():
            if name not in known:
                yield resource, f"is exempt from {name}, which is not a rule"
            elif not str(reason).strip():
                yield resource, f"is exempt from {name} without a reason"
