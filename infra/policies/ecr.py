"""Rules about image repositories."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.documents import ANYONE, principals, statements
from infra.policies.graph import UNKNOWN, Graph, PlannedResource, holds
from infra.policies.rule import Finding, rule

REPOSITORY = "aws:ecr/repository:Repository"
_LIFECYCLE = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
_POLICY = "aws:ecr/repositoryPolicy:RepositoryPolicy"
_PUBLIC = "aws:ecrpublic/repository:Repository"


@rule("ecr-immutable-tags", "A tag means one image for ever", "CKV_AWS_51")
def immutable_tags(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not holds(repository.at("imageTagMutability"), "IMMUTABLE"):
            yield repository, "lets a tag be moved to another image"


@rule("ecr-scanned", "Images are scanned when they are pushed", "CKV_AWS_163")
def scanned(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not holds(repository.at("imageScanningConfiguration", "scanOnPush"), True):
            yield repository, "does not scan images"


@rule("ecr-encrypted-with-customer-key", "Images are encrypted with a customer key of KMS", "CKV_AWS_136")
def encrypted_with_customer_key(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        kind = repository.at("encryptionConfigurations", 0, "encryptionType")
        if not (holds(kind, "KMS") and repository.at("encryptionConfigurations", 0, "kmsKey")):
            yield repository, "is not encrypted with a key of its own"


@rule("ecr-lifecycle", "A repository ends images that nothing names")
def lifecycle(graph: Graph) -> Iterator[Finding]:
    policies = graph.of_type(_LIFECYCLE)
    for repository in graph.of_type(REPOSITORY):
        if not any(_belongs(policy, repository) for policy in policies):
            yield repository, "keeps every image for ever"


def _belongs(policy: PlannedResource, repository: PlannedResource) -> bool:
    target = policy.at("repository")
    if target is UNKNOWN or repository.at("name") is UNKNOWN:
        return policy.parent == repository.parent and policy.name == repository.name
    return bool(target == repository.at("name"))


@rule("ecr-private", "Images are not public", "CKV_AWS_32")
def private(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(_PUBLIC):
        yield repository, "is public"
    for policy in graph.of_type(_POLICY):
        for statement in statements(policy.at("policy")) or ():
            if statement.get("Effect") == "Allow" and ANYONE in principals(statement):
                yield policy, "lets everybody in"


@rule("ecr-kept", "Outside a disposable environment a repository is not deleted with its images")
def kept(graph: Graph) -> Iterator[Finding]:
    for repository in graph.of_type(REPOSITORY):
        if not graph.disposable and repository.at("forceDelete") is True:
            yield repository, "may be deleted with its images"
