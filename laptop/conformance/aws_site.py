"""An AWS account as the target `aws` sees it: emulated account, real cluster, real CLI, a clone of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS, Account, start
from laptop.aws.cloud import Cloud
from laptop.aws.image_content import publish
from laptop.cluster.image_source import EcrImageSource
from laptop.cluster.node_account import NodeAccount
from laptop.conformance.control_plane import ControlPlane, running
from laptop.conformance.engines import link_binaries
from laptop.conformance.worker_node import running_node
from laptop.demo.material import own_clone, take_releases_back
from laptop.github.oidc_issuer import Issuer
from laptop.github.trust import AUDIENCE, ISSUER
from laptop.plugin_executables import install, write_executable
from laptop.publishing import local_context
from pipelines.declarations.environment import Images
from pipelines.declarations.names import repository_name
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, pin_images

PULUMI = ("pulumi", "pulumi-kubernetes")
CLUSTER = ("etcd", "kube-apiserver", "kube-controller-manager", "argo-rollouts")
ENGINES = (*PULUMI, *CLUSTER)
"""Engines that a site needs."""

OPERATOR = "operator"
"""An administrator of the account."""

REPOSITORY = "acme/mlops"
"""The repository that the roles trust: the one in `Pulumi.account.yaml`."""

_MODEL, _SECOND = "diabetes-progression", "diabetes-second"
_COMMAND_WITHIN = 600.0  # seconds


class CommandFailed(AssertionError):  # noqa: N818
    """A command ended with another status than expected; the message has its output."""


@dataclass
class AwsSite:
    """The site.

    Attributes:
        root: the clone of the repository.
        home: the laptop's folder; the account is in `aws/`.
        account: the emulated account.
        plane: the cluster's control plane.
        issuer: GitHub's token issuer.
        path: PATH with the tools.
        outputs: outputs of the bootstrap, once it ran.
        backend: where Pulumi's state is.
    """

    root: Path
    home: Path
    account: Account
    plane: ControlPlane
    issuer: Issuer
    path: str
    outputs: dict[str, Any] = field(default_factory=dict)
    backend: str = ""

    @property
    def project(self) -> Project:
        """The project in the clone."""
        return Project(self.root)

    def environ(self, who: str = OPERATOR) -> dict[str, str]:
        """Return the variables of a caller: the operator, or a job of a GitHub environment by its role.

        Args:
            who: `OPERATOR`, or the name of a GitHub environment such as `dev` or `preview`.
        """
        identity = {"AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws" / "credentials")}
        if who != OPERATOR:
            identity = {
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_ROLE_ARN": self.role(who),
                "AWS_ROLE_SESSION_NAME": "run-1",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(self._token(who)),
            }
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "SSL_CERT_FILE") if name in os.environ}
        return {
            **kept,
            "PATH": self.path,
            "HOME": str(self.home),
            "PYTHONPATH": str(self.root),
            "PULUMI_HOME": str(self.home / "pulumi"),
            "PULUMI_BACKEND_URL": self.backend,
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "KUBECONFIG": str(self.home / f"kubeconfig-{who}"),
            "MLOPS_TARGET": "aws",
            **self.account.environ(),
            **identity,
        }

    def role(self, who: str) -> str:
        """Return the ARN of the role of a GitHub environment."""
        if who in ("preview", "images"):
            return str(self.outputs[f"{who}_role"])
        return str(self.outputs["deploy_roles"][who])

    def run(
        self, *command: str | Path, who: str = OPERATOR, folder: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone as a caller; standard error goes to standard output."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.root / folder,
            env={**self.environ(who), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_COMMAND_WITHIN,
        )

    def done(self, *command: str | Path, who: str = OPERATOR, folder: str = "") -> str:
        """Run a command that must succeed, and return its output."""
        result = self.run(*command, who=who, folder=folder)
        if result.returncode:
            words = " ".join(map(str, command))
            raise CommandFailed(f"`{words}` as {who} ended with {result.returncode}:\n{result.stdout[-6000:]}")
        return result.stdout

    def mlops(self, *words: str, who: str = OPERATOR) -> str:
        """Run `mlops` with some words, which must succeed, and return its output."""
        return self.done(sys.executable, "-m", "pipelines.cli", *words, who=who)

    def refused(self, *words: str, who: str) -> str:
        """Run `mlops` with some words, which must fail, and return its output."""
        result = self.run(sys.executable, "-m", "pipelines.cli", *words, who=who)
        if result.returncode == 0:
            raise CommandFailed(f"`mlops {' '.join(words)}` as {who} succeeded:\n{result.stdout[-4000:]}")
        assert "Traceback" not in result.stdout, result.stdout
        return result.stdout

    def client(self, service: str) -> Any:
        """Return a boto3 client of the operator."""
        environ = self.account.environ()
        keys = dict(
            line.split(" = ") for line in Path(environ["AWS_SHARED_CREDENTIALS_FILE"]).read_text().split("\n")[1:3]
        )
        return boto3.client(service, endpoint_url=self.account.endpoint, region_name=self.account.region, **keys)

    def commit(self, message: str) -> str:
        """Commit every change in the clone, and return the commit."""
        git = ("git", "-c", "user.name=ada", "-c", "user.email=ada@example.com")
        self.done(*git, "add", "--all")
        self.done(*git, "commit", "--quiet", "--message", message)
        return self.done("git", "rev-parse", "HEAD").strip()

    def publish_images(self) -> None:
        """Publish both images to the account, and pin them in every environment."""
        cloud = Cloud(self.account.environ(), self.home / "aws")
        digests = {
            name: publish(cloud, repository_name(self.project.name, name), local_context(self.project, name))
            for name in NAMES
        }
        for environment in self.project.environments:
            pin_images(self.project, environment, Images(**digests))

    def _token(self, who: str) -> Path:
        token = self.home / f"token-{who}"
        claims = {"sub": f"repo:{REPOSITORY}:environment:{who}", "aud": AUDIENCE}
        token.touch(mode=0o600)
        token.write_text(self.issuer.token(claims))
        return token


@contextmanager
def aws_site(folder: Path, source: Path) -> Iterator[AwsSite]:
    """Start a site, with a clone of a repository that has two models, and stop it.

    Args:
        folder: an empty folder.
        source: the repository to clone.
    """
    with ExitStack() as stack:
        home = folder / "home"
        home.mkdir(mode=0o700)
        project = own_clone(Project(source), folder / "clone")
        _add_second_model(project)
        take_releases_back(project)
        (project.root / ".venv").symlink_to(Path(sys.executable).parents[1])
        account = start(home / "aws", region=project.stack(project.environments[0]).config.region)
        stack.callback(account.stop)
        binaries = link_binaries(folder / "bin", ENGINES)
        plane = stack.enter_context(running(folder / "plane", binaries, kwok=False, stand_ins=False))
        images = EcrImageSource(NodeAccount(home), home / "aws")
        stack.enter_context(running_node(plane, home, images, time_scale=0.1))
        tools = f"{binaries}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        plugins = install(home, tools)
        aws = shutil.which("aws")
        write_executable(plugins / "aws", "laptop.conformance.eks_command", [str(plane.kubeconfig), aws or "aws"])
        (home / "github").mkdir()
        issuer = Issuer(home / "github", published_keys(account.home / ISSUERS, ISSUER))
        site = AwsSite(project.root, home, account, plane, issuer, f"{plugins}{os.pathsep}{tools}")
        site.backend = f"file://{home}"
        _create_clusters(site)
        site.commit("template: start")
        yield site


def _create_clusters(site: AwsSite) -> None:
    """Create the EKS clusters that the environments name; all of them stand for the one that runs here."""
    eks = site.client("eks")
    names = {site.project.stack(name).config.environment.cluster for name in site.project.environments}
    for name in sorted(names):
        role = f"arn:aws:iam::{site.account.account}:role/cluster"
        eks.create_cluster(name=name, roleArn=role, resourcesVpcConfig={"subnetIds": []})


def _add_second_model(project: Project) -> None:
    """Add a second model: a copy of the sample under another name."""
    folder = project.root / "models"
    shutil.copytree(folder / _MODEL, folder / _SECOND)
    for file in (folder / _SECOND).rglob("*.yaml"):
        file.write_text(file.read_text().replace(f": {_MODEL}", f": {_SECOND}"))


def outputs_of(text: str) -> dict[str, Any]:
    """Return stack outputs that the CLI printed as JSON."""
    found: dict[str, Any] = json.loads(text)
    return found
