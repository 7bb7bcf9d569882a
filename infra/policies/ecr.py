"""Rules for ECR repositories."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.policy_documents import ANYONE, principals, statements
from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource, holds
from infra.policies.rule import Finding, rule

REPOSITORY = "aws:ecr/repository:Repository"
_LIFECYCLE = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
_POLICY = "aws:ecr/repositoryPolicy:RepositoryPolicy"
_PUBLIC = "aws:ecrpublic/repository:Repository"


@rule("ecr-immutable-tags", "A tag cannot be moved to another image", "CKV_AWS_51")
def immutable_tags(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not holds(repository.at("imageTagMutability"), "IMMUTABLE"):
            yield repository, "allows tags to be moved"


@rule("ecr-scanned", "Images are scanned on push", "CKV_AWS_163")
def scanned(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not holds(repository.at("imageScanningConfiguration", "scanOnPush"), True):
            yield repository, "does not scan images on push"


@rule("ecr-encrypted-with-customer-key", "Images are encrypted with a customer-managed KMS key", "CKV_AWS_136")
def encrypted_with_customer_key(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        kind = repository.at("encryptionConfigurations", 0, "encryptionType")
        if not (holds(kind, "KMS") and repository.at("encryptionConfigurations", 0, "kmsKey")):
            yield repository, "is not encrypted with a customer-managed KMS key"


@rule("ecr-lifecycle", "A repository has a lifecycle policy")
def lifecycle(graph: Graph) -> Iterator[Finding]:
    policies = graph.of_type(_LIFECYCLE)
    for repository in graph.of_type(REPOSITORY):
        if not any(_belongs(policy, repository) for policy in policies):
            yield repository, "has no lifecycle policy"


def _belongs(policy: PlannedResource, repository: PlannedResource) -> bool:
    target = policy.at("repository")
    if target is UNKNOWN or repository.at("name") is UNKNOWN:
        return policy.parent == repository.parent and policy.name == repository.name
    return bool(target == repository.at("name"))


@rule("ecr-private", "Images are not public", "CKV_AWS_32")
def private(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(_PUBLIC):
        yield repository, "is a public repository"
    for policy in graph.of_type(_POLICY):
        for statement in statements(policy.at("policy")) or ():
            if statement.get("Effect") == "Allow" and ANYONE in principals(statement):
                yield policy, "allows any principal"


@rule("ecr-kept", "A repository that holds images cannot be deleted, unless the environment is disposable")
def kept(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not graph.disposable and repository.at("forceDelete") is True:
            yield repository, "can be deleted together with its images"
