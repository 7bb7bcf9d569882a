"""Rules about the graph as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.exemptions import PROPERTY
from infra.policies.graph import PROVIDERS, UNKNOWN, Graph
from infra.policies.rule import Finding, rule

TAGS = ("owner", "environment", "model", "cost-centre")
"""The tags that everything carries that can."""

TAGGABLE = (
    "aws:s3/bucket:Bucket",
    "aws:kms/key:Key",
    "aws:glue/catalogDatabase:CatalogDatabase",
    "aws:ecr/repository:Repository",
    "aws:iam/role:Role",
    "aws:iam/policy:Policy",
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
)
"""Types of what carries tags, among those that an environment is made of."""

STATEFUL = (
    "aws:s3/bucket:Bucket",
    "aws:kms/key:Key",
    "aws:glue/catalogDatabase:CatalogDatabase",
    "aws:glue/catalogTable:CatalogTable",
    "aws:ecr/repository:Repository",
    "kubernetes:core/v1:Namespace",
    "kubernetes:core/v1:PersistentVolumeClaim",
)
"""Types of what holds something that cannot be made again."""


@rule("parent-is-component", "Every resource belongs to a component")
def parent_is_component(graph: Graph) -> Iterator[Finding]:
    for resource in graph.resources:
        if resource.package not in PROVIDERS:
            continue
        parent = graph.by_urn.get(resource.parent)
        if parent is None or parent.package in (*PROVIDERS, "pulumi"):
            yield resource, "stands outside of any component"


@rule("tagged", "Everything says who answers for it, where it belongs and who pays for it")
def tagged(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(*TAGGABLE):
        for tag in TAGS:
            if not resource.at("tags", tag):
                yield resource, f"has no tag {tag}"
    environments = {resource.at("tags", "environment") for resource in graph.of_type(*TAGGABLE)} - {None, UNKNOWN}
    if len(environments) > 1:
        for resource in graph.of_type(*TAGGABLE):
            yield resource, f"says it belongs to {resource.at('tags', 'environment')}, others say other environments"


@rule("state-protected", "Outside a disposable environment nothing is deleted that cannot be made again")
def state_protected(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(*STATEFUL):
        if not (resource.protect or graph.disposable):
            yield resource, "is not protected"


@rule("exemption-has-reason", "An exemption names a rule, and says why")
def exemption_has_reason(graph: Graph) -> Iterator[Finding]:
    from infra.policies import RULES  # the list that this rule is on

    known = {one.id for one in RULES}
    for resource in graph.resources:
        for name, reason in {**(resource.at(PROPERTY) or {}), **resource.exemptions}.items():
            if name not in known:
                yield resource, f"is exempt from {name}, which is no rule"
            elif not str(reason).strip():
                yield resource, f"is exempt from {name} without a reason"
