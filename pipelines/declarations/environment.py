"""Environment: its configuration (`Pulumi.<environment>.yaml`) and the descriptor that its jobs receive."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.names import Name, TagValue
from pipelines.declarations.timestamps import Timestamp
from pipelines.declarations.token_subject import Repository

if TYPE_CHECKING:
    from pipelines.declarations.contract import Contract

VARIABLE = "MLOPS_ENVIRONMENT"
"""Environment variable that holds the descriptor of a job."""

PORT_OF_HTTPS = 443
PORT_OF_HTTP = 80


def _check_range(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"a range of addresses; found {text!r}: {error}") from None
    return text


Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$"), AfterValidator(_check_range)]
"""Range of IPv4 or IPv6 addresses, such as `10.0.0.0/8`."""

ManagedPolicy = Annotated[
    str, StringConstraints(pattern=r"^(arn:[a-z-]+:iam::\d{12}:policy/)?[A-Za-z0-9_+=,.@/-]+$", max_length=700)
]
"""IAM managed policy: `path/name` or an ARN."""

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
"""An AWS region, `eu-west-1`."""

Architecture = Literal["amd64", "arm64"]
"""Processor architecture, as in Kubernetes' label `kubernetes.io/arch` and in container images."""

Severity = Literal["critical", "high", "medium", "low"]
"""Severity of a vulnerability, as Amazon ECR reports it."""

Domain = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$")]
"""A DNS name, `models.example.com`."""

Certificate = Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:acm:[a-z0-9-]+:\d{12}:certificate/.+$")]
"""ARN of a certificate of AWS Certificate Manager."""

PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Private address ranges (RFC 1918), used by practically every VPC."""


NODE_LOCAL_DNS = "169.254.20.10/32"
"""Address of NodeLocal DNSCache (Kubernetes documentation, "Using NodeLocal DNSCache in Kubernetes Clusters")."""


class Images(Declaration):
    """Digests of the images that an environment runs; None until an image is pinned."""

    training: Digest | None = None
    serving: Digest | None = None


class ImageRegistry(Declaration):
    """The ECR registry from which an environment pulls its images.

    Attributes:
        account: id of the AWS account that owns the registry; None for the environment's own account. That account's
            bootstrap must list the environment's account in `pull_accounts`.
        region: the registry's region; None for the environment's own region.
    """

    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")] | None = None
    region: Region | None = None


class AcceptedVulnerability(Declaration):
    """A vulnerability that does not refuse an image for a while.

    Attributes:
        name: its name in the scan result, such as `CVE-2026-1234`.
        reason: why it is accepted.
        until: timestamp with a time zone from which it counts again.
    """

    name: Annotated[str, StringConstraints(min_length=1)]
    reason: Annotated[str, StringConstraints(min_length=1)]
    until: Timestamp


class ImageSizes(Declaration):
    """Largest compressed size of each image, in megabytes (10^6 bytes)."""

    training: Annotated[int, Field(ge=1)] = 1500
    serving: Annotated[int, Field(ge=1)] = 500


class ImageRules(Declaration):
    """What an image must keep before an environment pins it.

    Attributes:
        severity: vulnerabilities of this severity or a higher one refuse an image.
        accepted: vulnerabilities that do not.
        largest_mb: bounds of the compressed sizes.
        soak_seconds: time for which the environment before must have run an image.
    """

    severity: Severity = "critical"
    accepted: tuple[AcceptedVulnerability, ...] = ()
    largest_mb: ImageSizes = ImageSizes()
    soak_seconds: Annotated[int, Field(ge=0)] = 0


class EndpointAccess(Declaration):
    """Addresses of the endpoints of an environment, and who may connect to them.

    Attributes:
        domain: the endpoint of a model is `<model>.<domain>`, a name that you point to its load balancer; None to use
            the load balancer's own name.
        certificate: ARN of an ACM certificate for `*.<domain>`. The load balancer then answers by HTTPS on port 443
            only; without it, by HTTP on port 80.
        tls_policy: security policy of the HTTPS listener.
        inbound_cidrs: address ranges that may connect to the load balancers; none for all that can reach them.
        security_groups: security groups of the load balancers, instead of those that their controller creates. Their
            inbound rules say who may connect.
        shared_load_balancer: True for one load balancer for all endpoints of the environment.
    """

    domain: Domain | None = None
    certificate: Certificate | None = None
    tls_policy: Annotated[str, StringConstraints(pattern=r"^ELBSecurityPolicy-[A-Za-z0-9-]+$")] = (
        "ELBSecurityPolicy-TLS13-1-2-2021-06"
    )
    inbound_cidrs: tuple[Cidr, ...] = ()
    security_groups: tuple[Annotated[str, StringConstraints(pattern=r"^sg-[0-9a-f]{8,17}$")], ...] = ()
    shared_load_balancer: bool = False

    @model_validator(mode="after")
    def _holds_together(self) -> EndpointAccess:
        if self.certificate and not self.domain:
            raise ValueError("domain, because a certificate is for a name; found certificate without domain")
        if self.inbound_cidrs and self.security_groups:
            raise ValueError("inbound_cidrs or security_groups, because AWS ignores the first; found both")
        return self


class GitHubAlarms(Declaration):
    """Delivery of the alarms of models to GitHub, where they start the workflow `respond`.

    Attributes:
        repository: `owner/name`.
        api: address of GitHub's API: `https://api.<name>.ghe.com` for GitHub Enterprise Cloud with data residency.
            No other address: EventBridge sends the token there.
    """

    repository: Repository
    api: Annotated[
        str, StringConstraints(pattern=r"^https://api\.(github\.com|[a-z0-9]([a-z0-9-]*[a-z0-9])?\.ghe\.com)$")
    ] = "https://api.github.com"

    @property
    def web(self) -> str:
        """Address of the site that people see."""
        return self.api.replace("https://api.", "https://")


class SecretKey(Declaration):
    """A value in a Kubernetes Secret of the environment's namespace, which you create.

    Attributes:
        secret: name of the Secret.
        key: key of the value.
    """

    secret: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]


class Prometheus(Declaration):
    """A Prometheus that scrapes the pods of endpoints, or a service with the same HTTP API.

    Attributes:
        url: base URL of its HTTP API, without `/api/v1`. A name that ends in `.svc` is a Service of the cluster.
        authorization: value of the header `Authorization`, such as `Bearer …`; None to send none. Needs HTTPS.
        certificate_authority: certificates in PEM that sign the server's own; None for the public ones.
        pod_port: port of its pods, if it is a Service of the cluster; None for the port of the URL.
        scraper_namespace: namespace of the pods that scrape, which may then connect to the pods of endpoints; None for
            that of the Service.
        job: name of the scrape job of the endpoints: the label `job`, which Prometheus itself adds. None for all jobs;
            then every pod that is scraped can pretend to be one of an endpoint.
    """

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[\w./~-]*)?$")
    ]
    authorization: SecretKey | None = None
    certificate_authority: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----\n")] | None = None
    pod_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    scraper_namespace: Name | None = None
    job: Annotated[str, StringConstraints(pattern=r"^[\w./:-]+$", max_length=200)] | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Prometheus:
        if not self.url.startswith("https://"):
            for name in ("authorization", "certificate_authority"):
                if getattr(self, name) is not None:
                    raise ValueError(f"a url that begins with https:// for {name}; found {self.url}")
        return self


class MlflowTracking(Declaration):
    """An MLflow server to which training jobs copy the parameters, metrics and tags of their runs.

    Attributes:
        url: its address, MLFLOW_TRACKING_URI: HTTPS, or an address of the same machine.
        token: the access token, MLFLOW_TRACKING_TOKEN; None to send none.
        pod_port: port of its pods, if it is a Service of the cluster; None for the port of the URL.
    """

    url: Annotated[
        str,
        StringConstraints(
            pattern=r"^(https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?|http://(127\.0\.0\.1|localhost))(:[0-9]{1,5})?(/[\w./~-]*)?$"
        ),
    ]
    token: SecretKey | None = None
    pod_port: Annotated[int, Field(ge=1, le=65535)] | None = None


class LineageEndpoint(Declaration):
    """An HTTP endpoint that gets a copy of the OpenLineage events of every job.

    Attributes:
        url: its address, OPENLINEAGE_URL.
        endpoint: path of its API, OPENLINEAGE_ENDPOINT.
        api_key: the key that authorises requests, OPENLINEAGE_API_KEY; None to send none. Needs HTTPS, or an address of
            the same machine.
        pod_port: port of its pods, if it is a Service of the cluster; None for the port of the URL.
    """

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[\w./~-]*)?$")
    ]
    endpoint: Annotated[str, StringConstraints(pattern=r"^[\w.~-]+(/[\w.~-]+)*$")] = "api/v1/lineage"
    api_key: SecretKey | None = None
    pod_port: Annotated[int, Field(ge=1, le=65535)] | None = None

    @property
    def is_local(self) -> bool:
        """True if the endpoint is on the same machine, as on the laptop."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost")

    @model_validator(mode="after")
    def _keeps_the_key(self) -> LineageEndpoint:
        if self.api_key is not None and not self.url.startswith("https://") and not self.is_local:
            raise ValueError(f"a url that begins with https:// for api_key; found {self.url}")
        return self


def service_namespace(url: str) -> str | None:
    """Return the namespace of the Service that a URL names; None if it does not name a Service of the cluster."""
    host = re.fullmatch(r"[^.]+\.([^.]+)\.svc(\..+)?", urlsplit(url).hostname or "")
    return host[1] if host is not None else None


class Monitoring(Declaration):
    """Monitors of an environment.

    Attributes:
        github: where the alarms of models go; None to keep them in the reports. See docs/on-call.md.
        datasets: False to monitor no dataset. A contract can also leave its dataset out.
        models: False to monitor no model. A model can also leave itself out.
        alarm_topics: ARNs of SNS topics that are notified when a CloudWatch alarm of a monitor goes off and when it
            ends; none for the console only.
        prometheus: where canary checks read the counts of requests; None to read them from the pods.
    """

    github: GitHubAlarms | None = None
    datasets: bool = True
    models: bool = True
    alarm_topics: tuple[
        Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[\w-]+$")], ...
    ] = ()
    prometheus: Prometheus | None = None


class SparkSettings(Declaration):
    """The Spark Connect server that reads the tables of datasets whose contract says `engine: spark`.

    Attributes:
        remote: a server outside the program, as `sc://host:port`; None to run one in the cluster.
        cpu, memory: requests and limits of the server in the cluster and of each worker, as in Kubernetes.
        scratch: size of their volumes for what does not fit into memory, and of that of a training job, which receives
            the sorted rows.
        workers: pods that the server starts for the work of one job; 0 to do all work in the server's pod.
    """

    remote: Annotated[str, StringConstraints(pattern=r"^sc://[A-Za-z0-9.-]+:[0-9]{2,5}$")] | None = None
    cpu: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,2}$")] = "4"
    memory: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}Gi$")] = "16Gi"
    scratch: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}Gi$")] = "50Gi"
    workers: Annotated[int, Field(ge=0, le=100)] = 0

    @model_validator(mode="after")
    def _workers_of_own_server(self) -> SparkSettings:
        if self.remote is not None and self.workers:
            raise ValueError(
                f"workers: 0 with a server elsewhere, which has workers of its own; found {self.workers} and "
                f"remote: {self.remote}"
            )
        return self


class CanaryHandling(Declaration):
    """What happens to a canary without a verdict.

    Attributes:
        on_inconclusive: `continue` if correct golden requests are enough, as where there is little traffic; `pause` to
            wait for more requests, and then for a person. Harm that is found stops a canary in both cases.
    """

    on_inconclusive: Literal["continue", "pause"] = "continue"


class FreezeWindow(Declaration):
    """Period without promotions. Rollbacks are always allowed.

    Attributes:
        start, end: timestamps with a time zone (`2026-12-24T00:00:00+01:00`); the end is exclusive.
        reason: shown when a promotion is refused.
    """

    start: Timestamp
    end: Timestamp
    reason: Annotated[str, StringConstraints(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> FreezeWindow:
        if self.end <= self.start:
            raise ValueError("end to be after start; found it before or equal")
        return self


class EnvironmentConfig(Declaration):
    """The value of `mlops:environment` in `Pulumi.<environment>.yaml`.

    Attributes:
        promotes_from: environment that must have verified a bundle before; None for the first environment.
        trains: True if ingest and training jobs run here; True for the first environment only.
        disposable: True if its data may be deleted with the stack; otherwise its resources are protected.
        owner: team that owns the environment (a tag on every resource).
        cost_centre: cost centre (a tag on every resource).
        cluster: name of the EKS cluster.
        namespace: Kubernetes namespace, created by the program.
        cluster_authority: digest of the certificate authority of a cluster that was created again under the same name.
            Without it, the program refuses a cluster with another authority than at the environment's first `up`.
        ingress_class: ingress class whose controller splits traffic by weight; `alb` is the AWS Load Balancer
            Controller.
        dns_cidrs: address ranges of DNS servers besides the pods labelled `k8s-app: kube-dns`: NodeLocal DNSCache by
            default. EKS Auto Mode runs DNS on the node: add the cluster's DNS address, such as 172.20.0.10/32.
        load_balancer_cidrs: address ranges of the load balancer, which may reach the pods. Set the subnets of your
            load balancers to exclude other pods of the VPC.
        permissions_boundary: managed policy that bounds every role of the program, as `path/name` or ARN; None if the
            account has none. The deploy role can only create roles with the boundary that `infra/bootstrap` creates.
        noncurrent_days: days to keep superseded or deleted object versions.
        retention_days: days that Object Lock protects bundles and ledger records from deletion.
        log_days: days to keep logs.
        freezes: periods without promotions to this environment.
        images: the pinned images.
        image_registry: the ECR registry that holds the images.
        image_rules: what an image must keep before it is pinned.
        architectures: processors of the nodes that run the pods. Images are built for those of all environments.
        endpoints: addresses of the endpoints, and who may connect to them.
        monitoring: the monitors of the environment.
        canary: what happens to a release on trial without a verdict.
        spark: the server for datasets whose contract says `engine: spark`.
        mlflow: where training jobs copy their runs; None to keep them in the registry only.
        openlineage: where jobs copy their OpenLineage events; None to keep them in the logs bucket only.
    """

    promotes_from: Name | None
    trains: bool
    disposable: bool
    owner: TagValue
    cost_centre: TagValue
    cluster: Name
    namespace: Name
    ingress_class: Name = "alb"
    dns_cidrs: tuple[Cidr, ...] = (NODE_LOCAL_DNS,)
    load_balancer_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)] = PRIVATE_RANGES
    cluster_authority: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    permissions_boundary: ManagedPolicy | None = None
    noncurrent_days: Annotated[int, Field(ge=1)] = 30
    retention_days: Annotated[int, Field(ge=1)] = 1
    log_days: Annotated[int, Field(ge=1)] = 90
    freezes: tuple[FreezeWindow, ...] = ()
    images: Images = Images()
    image_registry: ImageRegistry = ImageRegistry()
    image_rules: ImageRules = ImageRules()
    architectures: Annotated[tuple[Architecture, ...], Field(min_length=1)] = ("amd64",)
    endpoints: EndpointAccess = EndpointAccess()
    monitoring: Monitoring = Monitoring()
    canary: CanaryHandling = CanaryHandling()
    spark: SparkSettings = SparkSettings()
    mlflow: MlflowTracking | None = None
    openlineage: LineageEndpoint | None = None

    @property
    def spark_namespace(self) -> str:
        """Kubernetes namespace of the Spark server. The server may create pods there, so nothing else runs in it."""
        return f"{self.namespace}-spark"

    def monitors(self, contract: Contract) -> bool:
        """Return whether a dataset has a monitor here."""
        return self.trains and self.monitoring.datasets and contract.is_monitored

    @model_validator(mode="after")
    def _first_environment_trains(self) -> EnvironmentConfig:
        if self.trains != (self.promotes_from is None):
            raise ValueError(
                "trains: true if, and only if, promotes_from is null; "
                f"found trains: {str(self.trains).lower()} and promotes_from: {self.promotes_from or 'null'}"
            )
        return self


class StackConfig(Declaration):
    """`config` section of `Pulumi.<environment>.yaml`."""

    environment: EnvironmentConfig = Field(alias="mlops:environment")
    region: Region = Field(alias="aws:region")


class StackFile(Declaration):
    """`Pulumi.<environment>.yaml`."""

    config: StackConfig
    secrets_provider: str | None = Field(None, alias="secretsprovider")
    encrypted_key: str | None = Field(None, alias="encryptedkey")
    encryption_salt: str | None = Field(None, alias="encryptionsalt")


class ImageReferences(Declaration):
    """Image references by digest (`<repository>@sha256:…`); None until an image is pinned."""

    training: str | None = None
    serving: str | None = None


class Repositories(Declaration):
    """URLs of the ECR repositories, shared by all environments of an account."""

    training: str
    serving: str


class EnvironmentDescriptor(Declaration):
    """Names of a stack's resources: its output `descriptor`, and the variable `MLOPS_ENVIRONMENT` of its jobs.

    Attributes:
        name: name of the environment.
        promotes_from: the environment before it.
        region, account: AWS region and account.
        landing_bucket: bucket of landing files.
        lake_bucket: bucket of tables and quarantined rows.
        logs_bucket: bucket of inference logs, lineage events and reports of monitors.
        registry_bucket: bucket of bundles, evidence and the ledger.
        catalog_database: Glue database.
        signing_key: ARN of the KMS key that the environment signs with.
        trusted_keys: environment → PEM of its public key, for this environment and those it promotes from.
        cluster: name of the EKS cluster.
        namespace: Kubernetes namespace.
        images, repositories: container images and their repositories, which the account's bootstrap creates.
        endpoints: model → base URL; empty in a job, which is created before the endpoints.
    """

    format: Literal["mlops/environment/v1"] = "mlops/environment/v1"
    name: Name
    promotes_from: Name | None = None  # Pulumi omits outputs that are null
    region: str
    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
    landing_bucket: str
    lake_bucket: str
    logs_bucket: str
    registry_bucket: str
    catalog_database: str
    signing_key: str
    trusted_keys: dict[Name, str]
    cluster: str
    namespace: str
    images: ImageReferences
    repositories: Repositories
    endpoints: dict[Name, str] = Field(default_factory=dict)

    @classmethod
    def from_environ(cls) -> EnvironmentDescriptor:
        """Read the descriptor from `MLOPS_ENVIRONMENT`.

        Raises:
            MlopsError: the variable is not set, or is not a descriptor.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            raise MlopsError(
                f"the environment variable {VARIABLE} is not set",
                fix="run the job from its CronJob",
            )
        return parse(text, cls, Path(f"${VARIABLE}"))

    @classmethod
    def from_output(cls, output: Any, stack: str) -> EnvironmentDescriptor:
        """Read the descriptor from the output of a stack.

        Raises:
            DeclarationError: the output is missing or incomplete, because the stack is not up.
        """
        if not isinstance(output, dict):
            raise DeclarationError(
                [
                    Problem(
                        Path(f"stack {stack}"),
                        None,
                        "descriptor",
                        "an output of the stack",
                        "nothing",
                        f"mlops up --env {stack}",
                    )
                ]
            )
        return cls.model_validate(output, strict=False)
