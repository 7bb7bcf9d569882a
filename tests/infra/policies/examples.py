"""For each rule, a small graph that complies with it and graphs that violate it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from typing import Any

from infra.policies import PlannedResource

Resources = list[PlannedResource]

S3 = "aws:s3/"
BUCKET = f"{S3}bucket:Bucket"
ACCESS = f"{S3}bucketPublicAccessBlock:BucketPublicAccessBlock"
ENCRYPTION = f"{S3}bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
VERSIONING = f"{S3}bucketVersioning:BucketVersioning"
OWNERSHIP = f"{S3}bucketOwnershipControls:BucketOwnershipControls"
BUCKET_POLICY = f"{S3}bucketPolicy:BucketPolicy"
LOGGING = f"{S3}bucketLogging:BucketLogging"
LIFECYCLE = f"{S3}bucketLifecycleConfiguration:BucketLifecycleConfiguration"
LOCK = f"{S3}bucketObjectLockConfiguration:BucketObjectLockConfiguration"
ACL = f"{S3}bucketAcl:BucketAcl"
REPOSITORY = "aws:ecr/repository:Repository"
REPOSITORY_LIFECYCLE = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
REPOSITORY_POLICY = "aws:ecr/repositoryPolicy:RepositoryPolicy"
KEY = "aws:kms/key:Key"
ROLE = "aws:iam/role:Role"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
K8S = "kubernetes:"
NAMESPACE = f"{K8S}core/v1:Namespace"
SERVICE_ACCOUNT = f"{K8S}core/v1:ServiceAccount"
SERVICE = f"{K8S}core/v1:Service"
ROLLOUT = f"{K8S}argoproj.io/v1alpha1:Rollout"
CRON_JOB = f"{K8S}batch/v1:CronJob"
JOB = f"{K8S}batch/v1:Job"
ANALYSIS_TEMPLATE = f"{K8S}argoproj.io/v1alpha1:AnalysisTemplate"
BUDGET = f"{K8S}policy/v1:PodDisruptionBudget"
NETWORK = f"{K8S}networking.k8s.io/v1:NetworkPolicy"
INGRESS = f"{K8S}networking.k8s.io/v1:Ingress"
CLUSTER_ROLE = f"{K8S}rbac.authorization.k8s.io/v1:ClusterRole"
ROLE_IN_NAMESPACE = f"{K8S}rbac.authorization.k8s.io/v1:Role"
BINDING = f"{K8S}rbac.authorization.k8s.io/v1:ClusterRoleBinding"

KEY_ARN = "arn:aws:kms:eu-west-1:111122223333:key/data"
COMPONENT = "urn:component"


def resource(type_: str, props: dict[str, Any], name: str = "it", *, protect: bool = True) -> PlannedResource:
    """Return a protected resource of the component."""
    return PlannedResource(type_, name, f"urn:{type_}:{name}", props, protect, COMPONENT)


def component(**props: Any) -> PlannedResource:
    """Return the component that every resource belongs to."""
    return PlannedResource("mlops:test:Component", "component", COMPONENT, props, False, "urn:stack")


def drop(resources: Resources, type_: str) -> Resources:
    """Return the graph without the resources of a type."""
    return [one for one in resources if one.type != type_]


def put(resources: Resources, type_: str, *path: str | int, value: Any) -> Resources:
    """Return the graph with a value set at a path of every resource of a type."""
    changed = []
    for one in resources:
        if one.type == type_:
            props: Any = copy.deepcopy(dict(one.props))
            parent = props
            for step in path[:-1]:
                parent = parent[step]
            parent[path[-1]] = value
            one = PlannedResource(one.type, one.name, one.urn, props, one.protect, one.parent)
        changed.append(one)
    return changed


def unprotected(resources: Resources) -> Resources:
    """Return the graph with protection removed."""
    return [replace(one, protect=False) for one in resources]


def document(*statements: dict[str, Any]) -> str:
    """Return an IAM policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


TAGS = {"owner": "us", "environment": "prod", "model": "platform", "cost-centre": "1", "disposable": "false"}
TLS = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
ALL_BLOCKED = dict.fromkeys(("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True)

BUCKETS: Resources = [
    component(),
    resource(BUCKET, {"bucket": "b", "forceDestroy": False, "objectLockEnabled": True, "tags": TAGS}),
    resource(ACCESS, {"bucket": "b", **ALL_BLOCKED}),
    resource(OWNERSHIP, {"bucket": "b", "rule": {"objectOwnership": "BucketOwnerEnforced"}}),
    resource(
        ENCRYPTION,
        {
            "bucket": "b",
            "rules": [
                {
                    "applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY_ARN},
                    "bucketKeyEnabled": True,
                }
            ],
        },
    ),
    resource(VERSIONING, {"bucket": "b", "versioningConfiguration": {"status": "Enabled"}}),
    resource(LOCK, {"bucket": "b", "rule": {"defaultRetention": {"mode": "COMPLIANCE", "days": 1.0}}}),
    resource(BUCKET_POLICY, {"bucket": "b", "policy": document(TLS)}),
    resource(LOGGING, {"bucket": "b", "targetBucket": "logs"}),
    resource(
        LIFECYCLE,
        {
            "bucket": "b",
            "rules": [
                {
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "abortIncompleteMultipartUpload": {"daysAfterInitiation": 7.0},
                    "noncurrentVersionExpiration": {"noncurrentDays": 30.0},
                }
            ],
        },
    ),
]

REPOSITORIES: Resources = [
    component(),
    resource(
        REPOSITORY,
        {
            "name": "r",
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfigurations": [{"encryptionType": "KMS", "kmsKey": KEY_ARN}],
            "forceDelete": False,
            "tags": TAGS,
        },
    ),
    resource(REPOSITORY_LIFECYCLE, {"repository": "r", "policy": "{}"}),
    resource(
        REPOSITORY_POLICY,
        {
            "repository": "r",
            "policy": document({"Effect": "Allow", "Principal": {"AWS": "1"}, "Action": "ecr:BatchGetImage"}),
        },
    ),
]

ACCOUNT_DECIDES = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::1:root"},
    "Action": "kms:*",
    "Resource": "*",
}
KEYS: Resources = [
    component(),
    resource(
        KEY,
        {"enableKeyRotation": True, "deletionWindowInDays": 30.0, "policy": document(ACCOUNT_DECIDES), "tags": TAGS},
    ),
    resource(
        KEY,
        {
            "customerMasterKeySpec": "ECC_NIST_P256",
            "deletionWindowInDays": 30.0,
            "policy": document(ACCOUNT_DECIDES),
            "tags": TAGS,
        },
        name="signing",
    ),
]

TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "pods.eks.amazonaws.com"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"aws:SourceAccount": "1"}},
}
READ = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/models/*"]}
DECRYPT = {
    "Effect": "Allow",
    "Action": ["kms:Decrypt"],
    "Resource": [KEY_ARN],
    "Condition": {"StringLike": {"kms:EncryptionContext:aws:s3:arn": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]}},
}
PASS = {
    "Effect": "Allow",
    "Action": "iam:PassRole",
    "Resource": "arn:aws:iam::1:role/serve",
    "Condition": {"StringEquals": {"iam:PassedToService": "pods.eks.amazonaws.com"}},
}
TOKEN = {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}
BOUNDARY = "arn:aws:iam::1:policy/boundary"
ROLES: Resources = [
    *BUCKETS,
    resource(ROLE, {"assumeRolePolicy": document(TRUST), "permissionsBoundary": BOUNDARY, "tags": TAGS}),
    resource(ROLE, {"assumeRolePolicy": document(TRUST), "permissionsBoundary": BOUNDARY, "tags": TAGS}, name="other"),
    resource(ROLE_POLICY, {"policy": document(READ, DECRYPT, PASS, TOKEN)}),
    resource(ASSOCIATION, {"clusterName": "c", "namespace": "n", "serviceAccount": "a", "roleArn": "1", "tags": TAGS}),
    resource(
        ASSOCIATION,
        {"clusterName": "c", "namespace": "n", "serviceAccount": "b", "roleArn": "2", "tags": TAGS},
        name="other",
    ),
]


PERSON_TRUST = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Data_0a1b"},
    "Action": "sts:AssumeRole",
}

ISSUER = "token.actions.githubusercontent.com"
PREVIEW_TRUST: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"Federated": f"arn:aws:iam::1:oidc-provider/{ISSUER}"},
    "Action": "sts:AssumeRoleWithWebIdentity",
    "Condition": {
        "StringEquals": {
            f"{ISSUER}:aud": "sts.amazonaws.com",
            f"{ISSUER}:sub": "repo:acme@1/mlops@2:environment:preview",
        }
    },
}
DEPLOY_TRUST = {
    **PREVIEW_TRUST,
    "Condition": {
        "StringEquals": {
            f"{ISSUER}:aud": "sts.amazonaws.com",
            f"{ISSUER}:sub": "repo:acme@1/mlops@2:environment:dev",
        }
    },
}
PREVIEW_GRANT = {
    "Effect": "Allow",
    "Action": ["s3:GetObject", "s3:GetBucket*", "kms:Decrypt", "iam:GetRole"],
    "Resource": ["arn:aws:s3:::logs/*"],
}
CREATE_ROLE = {
    "Effect": "Allow",
    "Action": ["iam:CreateRole"],
    "Resource": "arn:aws:iam::1:role/mlops-dev-*",
    "Condition": {"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}},
}
CREATE_KEY = {
    "Effect": "Allow",
    "Action": ["kms:CreateKey"],
    "Resource": "*",
    "Condition": {"StringEquals": {"aws:RequestTag/environment": "dev"}},
}
SEND_METRICS = {
    "Effect": "Allow",
    "Action": ["cloudwatch:PutMetricData"],
    "Resource": "*",
    "Condition": {"StringEquals": {"cloudwatch:namespace": "mlops-dev"}},
}
GRANT = {
    "Effect": "Allow",
    "Action": ["kms:CreateGrant"],
    "Resource": KEY_ARN,
    "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}},
}
FEDERATED_ROLES: Resources = [
    component(),
    resource(ROLE, {"name": "preview", "assumeRolePolicy": document(PREVIEW_TRUST), "tags": TAGS}, name="preview"),
    resource(ROLE_POLICY, {"role": "preview", "policy": document(PREVIEW_GRANT)}, name="preview"),
    resource(ROLE_POLICY, {"role": "deploy", "policy": document(CREATE_ROLE)}, name="deploy"),
]


def federated(claim: str, value: Any, operator: str = "StringEquals") -> Resources:
    """Return the federated roles with another condition on a claim."""
    exact = dict(PREVIEW_TRUST["Condition"]["StringEquals"])
    del exact[f"{ISSUER}:{claim}"]
    condition: dict[str, Any] = {"StringEquals": exact}
    if value is not None:
        condition.setdefault(operator, {})[f"{ISSUER}:{claim}"] = value
    return put(FEDERATED_ROLES, ROLE, "assumeRolePolicy", value=document({**PREVIEW_TRUST, "Condition": condition}))


def previewing(action: str) -> Resources:
    """Return the federated roles with one more action for previews."""
    return [
        *FEDERATED_ROLES,
        resource(
            ROLE_POLICY, {"role": "preview", "policy": document({**PREVIEW_GRANT, "Action": action})}, name="more"
        ),
    ]


def creating_roles(**changes: Any) -> Resources:
    """Return the federated roles with one that creates roles under other conditions."""
    return [
        *FEDERATED_ROLES,
        resource(ROLE_POLICY, {"role": "x", "policy": document({**CREATE_ROLE, **changes})}, name="x"),
    ]


def granting(*statements: dict[str, Any]) -> Resources:
    """Return the roles with these statements as their policy."""
    return put(ROLES, ROLE_POLICY, "policy", value=document(*statements))


def allowing(action: str, target: str = "arn:aws:s3:::other/*", **more: Any) -> Resources:
    """Return the roles with one more grant."""
    return granting(READ, DECRYPT, {"Effect": "Allow", "Action": [action], "Resource": target, **more})


APP = {"app": "serve"}
CONTAINER = {
    "name": "serve",
    "image": "registry/serving@sha256:" + "a" * 64,
    "env": [{"name": "PORT", "value": "8080"}],
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "livenessProbe": {"httpGet": {}, "periodSeconds": 1.0},
    "readinessProbe": {"httpGet": {}, "periodSeconds": 1.0},
}
POD = {
    "serviceAccountName": "serve",
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [CONTAINER],
    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}],
}
JOB_SPEC = {
    "backoffLimit": 1.0,
    "activeDeadlineSeconds": 60.0,
    "ttlSecondsAfterFinished": 60.0,
    "template": {"metadata": {"labels": {"app": "train"}}, "spec": {**POD, "serviceAccountName": "train"}},
}
CHECK_SPEC = {
    **JOB_SPEC,
    "template": {"metadata": {"labels": {"app": "check"}}, "spec": {**POD, "serviceAccountName": "check"}},
}
ANALYSIS = {"analysis": {"templates": [{"templateName": "check"}]}}
STEPS: list[dict[str, Any]] = [
    {"setWeight": 10.0},
    {"pause": {"duration": "60s"}},
    ANALYSIS,
    {"setWeight": 50.0},
    ANALYSIS,
]
DNS = {"to": [{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": [{"port": 53.0}]}
FROM_VPC = {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 8080.0}]}


def network_policy(app: str) -> dict[str, Any]:
    """Return the network policy of a workload."""
    return {
        "metadata": {"namespace": "models"},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [FROM_VPC],
            "egress": [DNS],
        },
    }


DENY: dict[str, Any] = {
    "metadata": {"namespace": "models"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
CLUSTER: Resources = [
    component(),
    resource(
        NAMESPACE,
        {
            "metadata": {
                "name": "models",
                "labels": {
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "v1.33",
                },
            }
        },
    ),
    resource(NETWORK, DENY, name="default-deny"),
    resource(NETWORK, network_policy("serve"), name="serve"),
    resource(NETWORK, network_policy("train"), name="train"),
    resource(NETWORK, network_policy("check"), name="check"),
    resource(SERVICE_ACCOUNT, {"automountServiceAccountToken": False}),
    resource(
        ROLLOUT,
        {
            "metadata": {"namespace": "models"},
            "spec": {
                "replicas": 2.0,
                "template": {"metadata": {"labels": APP}, "spec": POD},
                "strategy": {"canary": {"steps": STEPS}},
            },
        },
    ),
    resource(BUDGET, {"spec": {"maxUnavailable": 1.0, "selector": {"matchLabels": APP}}}),
    resource(
        CRON_JOB,
        {
            "metadata": {"namespace": "models"},
            "spec": {"concurrencyPolicy": "Forbid", "jobTemplate": {"spec": JOB_SPEC}},
        },
    ),
    resource(
        ANALYSIS_TEMPLATE,
        {
            "metadata": {"namespace": "models", "name": "check"},
            "spec": {"metrics": [{"name": "answers", "provider": {"job": {"spec": CHECK_SPEC}}}]},
        },
    ),
    resource(INGRESS, {"metadata": {"annotations": {"alb.ingress.kubernetes.io/scheme": "internal"}}}),
    resource(SERVICE, {"spec": {"type": "ClusterIP"}}),
    resource(
        CLUSTER_ROLE,
        {
            "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["mine"]},
            ]
        },
    ),
    resource(BINDING, {"roleRef": {"name": "view"}}),
]
SPARK: Resources = [
    component(),
    resource(
        ROLE_IN_NAMESPACE,
        {
            "metadata": {"namespace": "spark"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get"]}],
        },
    ),
    resource(SERVICE_ACCOUNT, {"metadata": {"namespace": "spark"}, "automountServiceAccountToken": False}),
]
ACCOUNT_ELSEWHERE = PlannedResource(
    SERVICE_ACCOUNT, "train", "urn:train", {"metadata": {"namespace": "models"}}, False, "urn:another-component"
)
_POD_PATH = ("spec", "template", "spec")
_CONTAINER_PATH = (*_POD_PATH, "containers", 0)


def pod(*path: str | int, value: Any) -> Resources:
    """Return the cluster with a value set in the rollout's pods."""
    return put(CLUSTER, ROLLOUT, *_POD_PATH, *path, value=value)


def container(*path: str | int, value: Any) -> Resources:
    """Return the cluster with a value set in the rollout's container."""
    return put(CLUSTER, ROLLOUT, *_CONTAINER_PATH, *path, value=value)


def checking(*path: str | int, value: Any) -> Resources:
    """Return the cluster with a value set in the canary check's job."""
    return put(CLUSTER, ANALYSIS_TEMPLATE, "spec", "metrics", 0, "provider", "job", "spec", *path, value=value)


def steps(*given: dict[str, Any]) -> Resources:
    """Return the cluster with other steps in the rollout."""
    return put(CLUSTER, ROLLOUT, "spec", "strategy", "canary", "steps", value=list(given))


def network(name: str, spec: dict[str, Any]) -> Resources:
    """Return the cluster with a changed network policy."""
    left = [one for one in CLUSTER if (one.type, one.name) != (NETWORK, name)]
    return [*left, resource(NETWORK, {"metadata": {"namespace": "models"}, "spec": spec}, name=name)]


@dataclass(frozen=True)
class Example:
    """A graph that complies with a rule, and graphs that violate it."""

    keeps: Resources
    breaks: tuple[Resources, ...]


_RULES0 = ("rules", 0)
_DEFAULT = (*_RULES0, "applyServerSideEncryptionByDefault")

EXAMPLES: dict[str, Example] = {
    "s3-public-access-blocked": Example(
        BUCKETS,
        (
            drop(BUCKETS, ACCESS),
            *(put(BUCKETS, ACCESS, way, value=False) for way in ALL_BLOCKED),
            put(BUCKETS, ACCESS, "bucket", value="another"),
        ),
    ),
    "s3-encrypted-with-customer-key": Example(
        BUCKETS,
        (
            drop(BUCKETS, ENCRYPTION),
            put(BUCKETS, ENCRYPTION, *_DEFAULT, "sseAlgorithm", value="AES256"),
            put(BUCKETS, ENCRYPTION, *_DEFAULT, "kmsMasterKeyId", value=None),
        ),
    ),
    "s3-bucket-key": Example(BUCKETS, (put(BUCKETS, ENCRYPTION, *_RULES0, "bucketKeyEnabled", value=False),)),
    "s3-versioned": Example(
        BUCKETS,
        (drop(BUCKETS, VERSIONING), put(BUCKETS, VERSIONING, "versioningConfiguration", "status", value="Suspended")),
    ),
    "s3-owner-enforced": Example(
        BUCKETS,
        (
            drop(BUCKETS, OWNERSHIP),
            put(BUCKETS, OWNERSHIP, "rule", "objectOwnership", value="ObjectWriter"),
            [*BUCKETS, resource(ACL, {"bucket": "b", "acl": "public-read"})],
            put(BUCKETS, BUCKET, "acl", value="public-read"),
        ),
    ),
    "s3-tls-only": Example(
        BUCKETS,
        (
            drop(BUCKETS, BUCKET_POLICY),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document()),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document({**TLS, "Resource": "arn:aws:s3:::b/*"})),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document({**TLS, "Action": "s3:GetObject"})),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document({**TLS, "Principal": {"AWS": "1"}})),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document({**TLS, "Condition": {}})),
        ),
    ),
    "s3-no-public-principal": Example(
        BUCKETS,
        (
            put(BUCKETS, BUCKET_POLICY, "policy", value=document(TLS, {**READ, "Principal": "*"})),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document(TLS, {**READ, "Principal": {"AWS": ["*"]}})),
            put(BUCKETS, BUCKET_POLICY, "policy", value=document(TLS, {**READ, "NotPrincipal": {"AWS": "1"}})),
            put(BUCKETS, BUCKET_POLICY, "policy", value="not json"),
        ),
    ),
    "s3-access-logged": Example(BUCKETS, (drop(BUCKETS, LOGGING), put(BUCKETS, LOGGING, "targetBucket", value="b"))),
    "s3-lifecycle": Example(
        BUCKETS,
        (
            drop(BUCKETS, LIFECYCLE),
            put(BUCKETS, LIFECYCLE, *_RULES0, "status", value="Disabled"),
            put(BUCKETS, LIFECYCLE, *_RULES0, "filter", value={"prefix": "only/"}),
            put(BUCKETS, LIFECYCLE, *_RULES0, "abortIncompleteMultipartUpload", value=None),
            put(BUCKETS, LIFECYCLE, *_RULES0, "noncurrentVersionExpiration", value=None),
        ),
    ),
    "s3-kept": Example(BUCKETS, (put(BUCKETS, BUCKET, "forceDestroy", value=True), unprotected(BUCKETS))),
    "s3-object-lock-retains": Example(
        BUCKETS, (drop(BUCKETS, LOCK), put(BUCKETS, LOCK, "rule", "defaultRetention", value=None))
    ),
    "ecr-immutable-tags": Example(
        REPOSITORIES, (put(REPOSITORIES, REPOSITORY, "imageTagMutability", value="MUTABLE"),)
    ),
    "ecr-scanned": Example(
        REPOSITORIES,
        (
            put(REPOSITORIES, REPOSITORY, "imageScanningConfiguration", value=None),
            put(REPOSITORIES, REPOSITORY, "imageScanningConfiguration", "scanOnPush", value=False),
        ),
    ),
    "ecr-encrypted-with-customer-key": Example(
        REPOSITORIES,
        (
            put(REPOSITORIES, REPOSITORY, "encryptionConfigurations", value=[]),
            put(REPOSITORIES, REPOSITORY, "encryptionConfigurations", 0, "encryptionType", value="AES256"),
            put(REPOSITORIES, REPOSITORY, "encryptionConfigurations", 0, "kmsKey", value=None),
        ),
    ),
    "ecr-lifecycle": Example(
        REPOSITORIES,
        (drop(REPOSITORIES, REPOSITORY_LIFECYCLE), put(REPOSITORIES, REPOSITORY_LIFECYCLE, "repository", value="x")),
    ),
    "ecr-private": Example(
        REPOSITORIES,
        (
            [*REPOSITORIES, resource("aws:ecrpublic/repository:Repository", {})],
            put(
                REPOSITORIES,
                REPOSITORY_POLICY,
                "policy",
                value=document({"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}),
            ),
        ),
    ),
    "ecr-kept": Example(REPOSITORIES, (put(REPOSITORIES, REPOSITORY, "forceDelete", value=True),)),
    "kms-rotated": Example(
        KEYS, (put(KEYS, KEY, "enableKeyRotation", value=False), put(KEYS, KEY, "enableKeyRotation", value=None))
    ),
    "kms-no-public-principal": Example(
        KEYS,
        (
            put(KEYS, KEY, "policy", value=document({**ACCOUNT_DECIDES, "Principal": "*"})),
            put(KEYS, KEY, "policy", value=document({**ACCOUNT_DECIDES, "Principal": {"AWS": "*"}})),
        ),
    ),
    "kms-slow-to-delete": Example(KEYS, (put(KEYS, KEY, "deletionWindowInDays", value=7.0), unprotected(KEYS))),
    "service-principals-confined": Example(
        ROLES,
        (
            put(ROLES, ROLE, "assumeRolePolicy", value=document({**TRUST, "Condition": {}})),
            put(
                ROLES,
                ROLE,
                "assumeRolePolicy",
                value=document({**TRUST, "Condition": {"StringLike": {"aws:SourceAccount": "*"}}}),
            ),
            put(
                KEYS, KEY, "policy", value=document({**ACCOUNT_DECIDES, "Principal": {"Service": "logs.amazonaws.com"}})
            ),
        ),
    ),
    "iam-not-everything": Example(
        ROLES,
        (
            allowing("*"),
            granting({"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "arn:aws:s3:::other/*"}),
            granting({"Effect": "Allow", "Action": ["s3:GetObject"], "NotResource": "arn:aws:s3:::other/*"}),
            put(ROLES, ROLE, "inlinePolicies", value=[{"policy": document({**READ, "Action": "*"})}]),
        ),
    ),
    "iam-not-whole-service": Example(ROLES, (allowing("s3:*"), allowing("kms:*", KEY_ARN))),
    "iam-names-resources": Example(
        [
            *FEDERATED_ROLES,
            resource(ROLE_POLICY, {"role": "deploy", "policy": document(CREATE_KEY, SEND_METRICS)}, name="keys"),
        ],
        (
            allowing("s3:ListAllMyBuckets", "*"),
            allowing("kms:Sign", "*"),
            allowing("kms:CreateKey", "*"),
            allowing("cloudwatch:PutMetricData", "*"),
        ),
    ),
    "iam-no-escalation": Example(
        [
            *ROLES,
            resource(
                ROLE_POLICY, {"policy": document({**CREATE_ROLE, "Action": "iam:PutRolePolicy"}, GRANT)}, name="x"
            ),
        ],
        (
            creating_roles(Action="iam:PutRolePolicy", Condition={"StringLike": {"iam:PermissionsBoundary": "*"}}),
            creating_roles(Action="iam:UpdateAssumeRolePolicy"),
            allowing("kms:CreateGrant", KEY_ARN, Condition={"Bool": {"kms:GrantIsForAWSResource": "false"}}),
            allowing("iam:PutRolePolicy", "arn:aws:iam::1:role/a"),
            allowing("iam:Put*", "arn:aws:iam::1:role/a"),
            allowing("sts:AssumeRole", "arn:aws:iam::1:role/a"),
            allowing("secretsmanager:GetSecretValue"),
        ),
    ),
    "iam-pass-role-confined": Example(
        ROLES,
        (
            granting({**PASS, "Resource": "arn:aws:iam::1:role/*"}),
            granting({**PASS, "Resource": "arn:aws:iam::1:*"}),
            granting({**PASS, "Resource": ["*"]}),
            granting({**PASS, "Condition": {}}),
        ),
    ),
    "iam-makes-bounded-roles": Example(
        FEDERATED_ROLES,
        (
            creating_roles(Condition={}),
            creating_roles(Condition={"StringLike": {"iam:PermissionsBoundary": "*"}}),
            creating_roles(Action="iam:PutRolePolicy", Condition={}),
            creating_roles(Action="iam:DeleteRolePermissionsBoundary"),
        ),
    ),
    "oidc-audience": Example(
        FEDERATED_ROLES,
        (federated("aud", None), federated("aud", "https://github.com/acme"), federated("aud", "*", "StringLike")),
    ),
    "oidc-subject-exact": Example(
        FEDERATED_ROLES,
        (
            federated("sub", None),
            federated("sub", "repo:acme/mlops:*", "StringLike"),
            federated("sub", "repo:acme/mlops:environment:dev", "StringLike"),
            federated("sub", "repo:acme/*:environment:dev"),
            federated("sub", "repo:acme/mlops:ref:refs/heads/main"),
            federated("sub", "repo:acme/mlops:pull_request"),
            federated("sub", ["repo:acme/mlops:environment:dev", "repo:acme/mlops:environment:prod"]),
        ),
    ),
    "oidc-alone": Example(
        [
            *FEDERATED_ROLES,
            resource(ROLE, {"name": "deploy", "assumeRolePolicy": document(DEPLOY_TRUST), "tags": TAGS}, name="deploy"),
        ],
        (
            put(FEDERATED_ROLES, ROLE, "assumeRolePolicy", value=document(PREVIEW_TRUST, TRUST)),
            put(
                FEDERATED_ROLES,
                ROLE,
                "assumeRolePolicy",
                value=document(PREVIEW_TRUST, {**PREVIEW_TRUST, "Effect": "Deny"}),
            ),
            put(
                FEDERATED_ROLES,
                ROLE,
                "assumeRolePolicy",
                value=document(
                    {**PREVIEW_TRUST, "Principal": {**PREVIEW_TRUST["Principal"], "AWS": "arn:aws:iam::1:root"}}
                ),
            ),
            put(
                FEDERATED_ROLES,
                ROLE,
                "assumeRolePolicy",
                value=document({**PREVIEW_TRUST, "Action": ["sts:AssumeRoleWithWebIdentity", "sts:AssumeRole"]}),
            ),
            [
                *FEDERATED_ROLES,
                resource(ROLE, {"name": "two", "assumeRolePolicy": document(PREVIEW_TRUST), "tags": TAGS}, name="two"),
            ],
        ),
    ),
    "oidc-preview-reads": Example(
        FEDERATED_ROLES,
        (
            previewing("s3:PutObject"),
            previewing("kms:Encrypt"),
            previewing("iam:PassRole"),
            previewing("glue:UpdateTable"),
            previewing("cloudwatch:PutMetricAlarm"),
            previewing("events:PutEvents"),
            previewing("sqs:ReceiveMessage"),
        ),
    ),
    "iam-no-standing-credentials": Example(
        ROLES,
        (
            [*ROLES, resource("aws:iam/user:User", {})],
            [*ROLES, resource("aws:iam/accessKey:AccessKey", {})],
            [
                *ROLES,
                resource(
                    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
                    {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
                ),
            ],
            put(ROLES, ROLE, "managedPolicyArns", value=["arn:aws:iam::aws:policy/AdministratorAccess"]),
        ),
    ),
    "iam-trusts-named-callers": Example(
        [*ROLES, resource(ROLE, {"assumeRolePolicy": document(PERSON_TRUST), "tags": TAGS}, name="person")],
        tuple(
            put(ROLES, ROLE, "assumeRolePolicy", value=document({**PERSON_TRUST, **trusted}))
            for trusted in (
                {"Principal": "*"},
                {"Principal": {"AWS": "*"}},
                {"Principal": {"AWS": "111122223333"}},
                {"Principal": {"AWS": "arn:aws:iam::111122223333:root"}},
                {"Principal": {"AWS": ["arn:aws:iam::111122223333:role/data", "arn:aws:iam::111122223333:role/*"]}},
                {"Principal": None, "NotPrincipal": {"AWS": "arn:aws:iam::111122223333:role/data"}},
            )
        ),
    ),
    "iam-bounded": Example(
        ROLES,
        (
            [*ROLES, resource(ROLE, {"assumeRolePolicy": document(TRUST)}, name="unbounded")],
            [*ROLES, resource(ROLE, {"permissionsBoundary": "arn:aws:iam::1:policy/wider"}, name="wider")],
        ),
    ),
    "iam-key-with-bucket": Example(
        ROLES,
        (
            granting(READ),
            granting({**READ, "Action": "s3:PutObject"}, DECRYPT),
            granting(READ, {**DECRYPT, "Resource": "arn:aws:kms:eu-west-1:1:key/other"}),
            granting(
                READ,
                {**DECRYPT, "Condition": {"StringLike": {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::other"}}},
            ),
        ),
    ),
    "iam-one-role-each": Example(
        ROLES, (put(ROLES, ASSOCIATION, "roleArn", value="1"), put(ROLES, ASSOCIATION, "serviceAccount", value="a"))
    ),
    "k8s-namespace-restricted": Example(
        CLUSTER,
        (
            put(CLUSTER, NAMESPACE, "metadata", "labels", value={}),
            put(CLUSTER, NAMESPACE, "metadata", "labels", "pod-security.kubernetes.io/enforce", value="baseline"),
            put(CLUSTER, NAMESPACE, "metadata", "labels", "pod-security.kubernetes.io/enforce-version", value="latest"),
        ),
    ),
    "k8s-pod-restricted": Example(
        CLUSTER,
        (
            pod("securityContext", value={}),
            pod("securityContext", "runAsUser", value=0.0),
            pod("securityContext", "seccompProfile", "type", value="Unconfined"),
            pod("hostNetwork", value=True),
            container("securityContext", "allowPrivilegeEscalation", value=True),
            container("securityContext", "privileged", value=True),
            container("securityContext", "capabilities", value={"drop": ["NET_RAW"]}),
            container("securityContext", "capabilities", value={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            put(CLUSTER, CRON_JOB, "spec", "jobTemplate", "spec", "template", "spec", "securityContext", value={}),
            checking("template", "spec", "securityContext", value={}),
        ),
    ),
    "k8s-read-only-root": Example(
        CLUSTER,
        (
            container("securityContext", "readOnlyRootFilesystem", value=False),
            pod("volumes", value=[{"name": "tmp", "emptyDir": {}}]),
        ),
    ),
    "k8s-resources-bounded": Example(
        CLUSTER, (container("resources", value={}), container("resources", "limits", "memory", value=None))
    ),
    "k8s-probed": Example(CLUSTER, (container("livenessProbe", value=None), container("readinessProbe", value=None))),
    "k8s-image-by-digest": Example(
        CLUSTER, (container("image", value="registry/serving:latest"), container("image", value="registry/serving"))
    ),
    "k8s-own-account": Example(
        CLUSTER,
        (
            pod("serviceAccountName", value="default"),
            pod("serviceAccountName", value=None),
            pod("serviceAccountName", value="train"),
            pod("automountServiceAccountToken", value=None),
            put(CLUSTER, SERVICE_ACCOUNT, "automountServiceAccountToken", value=True),
        ),
    ),
    "k8s-survives-a-drain": Example(
        CLUSTER,
        (
            drop(CLUSTER, BUDGET),
            put(CLUSTER, BUDGET, "spec", "maxUnavailable", value=0.0),
            put(CLUSTER, BUDGET, "spec", value={"minAvailable": 2.0, "selector": {"matchLabels": APP}}),
            put(CLUSTER, BUDGET, "spec", "selector", value={"matchLabels": {"app": "another"}}),
            put(CLUSTER, ROLLOUT, "spec", "replicas", value=1.0),
            pod("topologySpreadConstraints", value=[{"topologyKey": "kubernetes.io/hostname"}]),
        ),
    ),
    "k8s-no-literal-secret": Example(CLUSTER, (container("env", value=[{"name": "DB_PASSWORD", "value": "x"}]),)),
    "k8s-job-ends": Example(
        CLUSTER,
        (
            *(
                put(CLUSTER, CRON_JOB, "spec", "jobTemplate", "spec", bound, value=None)
                for bound in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
            ),
            [*CLUSTER, resource(JOB, {"spec": {}})],
            checking("ttlSecondsAfterFinished", value=None),
        ),
    ),
    "k8s-release-tried": Example(
        CLUSTER,
        (
            drop(CLUSTER, ANALYSIS_TEMPLATE),
            steps(),
            steps(ANALYSIS),
            steps(*STEPS[:-1]),
            steps(*STEPS[:2], *STEPS[3:]),
        ),
    ),
    "k8s-job-alone": Example(CLUSTER, (put(CLUSTER, CRON_JOB, "spec", "concurrencyPolicy", value="Allow"),)),
    "k8s-default-deny": Example(
        CLUSTER,
        (
            drop(CLUSTER, NETWORK),
            network("default-deny", {**DENY["spec"], "policyTypes": ["Ingress"]}),
            network("default-deny", {**DENY["spec"], "egress": [{}]}),
            [one for one in CLUSTER if (one.type, one.name) != (NETWORK, "train")],
        ),
    ),
    "k8s-network-policy-named": Example(
        CLUSTER,
        (
            network("serve", {**network_policy("serve")["spec"], "ingress": [{}]}),
            network("serve", {**network_policy("serve")["spec"], "egress": [{"to": DNS["to"]}]}),
            network(
                "serve",
                {
                    **network_policy("serve")["spec"],
                    "ingress": [{**FROM_VPC, "from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
                },
            ),
        ),
    ),
    "k8s-internal-endpoint": Example(
        CLUSTER,
        (
            put(CLUSTER, INGRESS, "metadata", "annotations", value={}),
            put(
                CLUSTER,
                INGRESS,
                "metadata",
                "annotations",
                value={"alb.ingress.kubernetes.io/scheme": "internet-facing"},
            ),
            put(CLUSTER, SERVICE, "spec", "type", value="LoadBalancer"),
        ),
    ),
    "k8s-rbac-named": Example(
        CLUSTER,
        (
            put(CLUSTER, CLUSTER_ROLE, "rules", 0, "verbs", value=["*"]),
            put(CLUSTER, CLUSTER_ROLE, "rules", 0, "resources", value=["*"]),
            put(CLUSTER, CLUSTER_ROLE, "rules", 1, "resourceNames", value=[]),
            put(CLUSTER, BINDING, "roleRef", "name", value="cluster-admin"),
        ),
    ),
    "k8s-pod-creator-apart": Example(
        [*SPARK, ACCOUNT_ELSEWHERE],
        (
            put([*SPARK, ACCOUNT_ELSEWHERE], ROLE_IN_NAMESPACE, "metadata", "namespace", value="models"),
            [replace(one, type=CLUSTER_ROLE) if one.type == ROLE_IN_NAMESPACE else one for one in SPARK],
        ),
    ),
    "parent-is-component": Example(
        BUCKETS,
        (
            [replace(one, parent="urn:stack") if one.type == BUCKET else one for one in BUCKETS],
            [replace(one, parent=f"urn:{BUCKET}:it") if one.type == ACCESS else one for one in BUCKETS],
        ),
    ),
    "tagged": Example(
        [*BUCKETS, *KEYS[1:]],
        (
            put(BUCKETS, BUCKET, "tags", value=None),
            *(put(BUCKETS, BUCKET, "tags", tag, value="") for tag in TAGS if tag != "disposable"),
            put([*BUCKETS, *KEYS[1:]], KEY, "tags", "environment", value="dev"),
        ),
    ),
    "state-protected": Example(BUCKETS, (unprotected(BUCKETS), unprotected(REPOSITORIES), unprotected(CLUSTER))),
    "exemption-has-reason": Example(
        [component(exemptions={"s3-versioned": "objects are copies"})],
        (
            [component(exemptions={"s3-versioned": " "})],
            [component(exemptions={"s3-versionned": "the rule id is misspelled"})],
        ),
    ),
}
