"""An AWS account as the target `aws` sees it: emulated account, real cluster, real CLI, a clone of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS, Account, start
from laptop.aws.cloud import Cloud
from laptop.aws.eks_clusters import declare_clusters, declared_clusters
from laptop.aws.image_content import publish
from laptop.conformance.control_plane import ControlPlane
from laptop.conformance.engines import link_binaries
from laptop.demo.material import CENSUS, own_clone, take_releases_back
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.hub import Hub
from laptop.github.oidc_issuer import Issuer
from laptop.github.trust import AUDIENCE, ISSUER
from laptop.plugin_executables import AWS_PLUGIN, install, write_executable
from laptop.publishing import local_context
from pipelines.declarations.environment import Images
from pipelines.declarations.names import repository_name
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, pin_images

PULUMI = ("pulumi", "pulumi-kubernetes")
"""Engines that a site needs, in addition to its cluster."""

OFFICIAL = "CONFORMANCE_OFFICIAL_PLUGINS"
"""Environment variable: use Pulumi's own plugins, installed by the CLI, instead of the laptop's and the built one."""

_OFFICIAL_SETTINGS = ("aws:s3UsePathStyle", "aws:skipMetadataApiCheck", "aws:skipRequestingAccountId")

OPERATOR = "operator"
"""An administrator of the account."""

REPOSITORY = "acme/mlops"
"""The repository that the roles trust: the one in `Pulumi.account.yaml`."""

PERSON = "ada"
"""Who works in the clone and opens pull requests."""

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
        hub: GitHub, which hosts the repository.
        issuer: GitHub's token issuer.
        path: PATH with the tools.
        outputs: outputs of the bootstrap, once it ran.
        backend: where Pulumi's state is.
    """

    root: Path
    home: Path
    account: Account
    plane: ControlPlane
    hub: Hub
    issuer: Issuer
    path: str
    outputs: dict[str, Any] = field(default_factory=dict)
    backend: str = ""
    _keys: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

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
            identity = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, **self._sign_in(who)}
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "SSL_CERT_FILE") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            **self.hub.environ(PERSON),
            "PATH": self.path,
            "PYTHONPATH": str(self.root),
            "PULUMI_HOME": str(Path.home() / ".pulumi" if OFFICIAL in os.environ else self.home / "pulumi"),
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

    def done(
        self, *command: str | Path, who: str = OPERATOR, folder: str = "", more: Mapping[str, str] | None = None
    ) -> str:
        """Run a command that must succeed, and return its output."""
        result = self.run(*command, who=who, folder=folder, more=more)
        if result.returncode:
            words = " ".join(map(str, command))
            raise CommandFailed(f"`{words}` as {who} ended with {result.returncode}:\n{result.stdout[-6000:]}")
        return result.stdout

    def mlops(self, *words: str, who: str = OPERATOR, more: Mapping[str, str] | None = None) -> str:
        """Run `mlops` with some words, which must succeed, and return its output."""
        return self.done(sys.executable, "-m", "pipelines.cli", *words, who=who, more=more)

    def use(self, environment: str, who: str) -> None:
        """Make a caller's commands use the cluster of an environment, as every job of a workflow begins."""
        self.mlops("ci", "use-cluster", "--env", environment, who=who)

    def refused(self, *words: str, who: str) -> str:
        """Run `mlops` with some words, which must fail, and return its output."""
        result = self.run(sys.executable, "-m", "pipelines.cli", *words, who=who)
        if result.returncode == 0:
            raise CommandFailed(f"`mlops {' '.join(words)}` as {who} succeeded:\n{result.stdout[-4000:]}")
        assert "Traceback" not in result.stdout, result.stdout
        return result.stdout

    def client(self, service: str) -> Any:
        """Return a boto3 client of the operator."""
        profile = (self.home / "aws" / "credentials").read_text().split()
        return boto3.client(
            service,
            endpoint_url=self.account.endpoint,
            region_name=self.account.region,
            aws_access_key_id=profile[3],
            aws_secret_access_key=profile[6],
        )

    def bootstrap(self) -> None:
        """Do what the bootstrap page says: create the account's resources, and move the state into its bucket."""
        folder, stack = "infra/bootstrap", ("--stack", "account")
        self.done("pulumi", "stack", "init", "account", folder=folder)
        self._configure("account", folder)
        self.done("pulumi", "up", "--yes", "--skip-preview", *stack, folder=folder)
        self.outputs = json.loads(self.done("pulumi", "stack", "output", "--json", *stack, folder=folder))
        file = str(self.home / "account.json")
        self.done("pulumi", "stack", "export", *stack, "--file", file, folder=folder)
        # The page's URL, and that the emulated S3 has one host name for every bucket.
        self.backend = f"{self.outputs['backend_url']}&use_path_style=true"
        self.done("pulumi", "stack", "init", "account", *self._secrets, folder=folder)
        self.done("pulumi", "stack", "import", *stack, "--file", file, folder=folder)
        for environment in self.project.environments:
            self.done("pulumi", "stack", "init", environment, *self._secrets)
            self._configure(environment)
            self._give_access(environment)

    def _give_access(self, environment: str) -> None:
        """Apply the cluster roles of an environment, and type the commands that this prints."""
        self.use(environment, OPERATOR)
        said = self.mlops("cluster", "roles", "--env", environment, "--apply")
        account = self.client("sts").get_caller_identity()["Account"]
        commands = [line.split() for line in said.splitlines() if line.lstrip().startswith("aws eks ")]
        assert len(commands) == 2, said
        for command in commands:
            self.done(*(word.replace("<account>", account) for word in command))

    @property
    def _secrets(self) -> tuple[str, str]:
        return ("--secrets-provider", f"awskms://alias/mlops-state?region={self.account.region}")

    def _configure(self, stack: str, folder: str = "") -> None:
        if OFFICIAL in os.environ:
            for setting in _OFFICIAL_SETTINGS:
                self.done("pulumi", "config", "set", setting, "true", "--stack", stack, folder=folder)

    def commit(self, message: str, branch: str = "main") -> str:
        """Commit every change in the clone, push it to a branch, and return the commit."""
        self.done("git", "add", "--all")
        self.done("git", "commit", "--quiet", "--message", message)
        self.done("git", "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
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

    def _sign_in(self, who: str) -> dict[str, str]:
        """Exchange a token of GitHub for keys of a role, as `aws-actions/configure-aws-credentials` does."""
        if who not in self._keys:
            claims = {"sub": f"repo:{REPOSITORY}:environment:{who}", "aud": AUDIENCE}
            sts = boto3.client(
                "sts",
                endpoint_url=self.account.endpoint,
                region_name=self.account.region,
                config=Config(signature_version=UNSIGNED),
            )
            answer = sts.assume_role_with_web_identity(
                RoleArn=self.role(who), RoleSessionName="run-1", WebIdentityToken=self.issuer.token(claims)
            )["Credentials"]
            names = {"ACCESS_KEY_ID": "AccessKeyId", "SECRET_ACCESS_KEY": "SecretAccessKey"}
            names["SESSION_TOKEN"] = "SessionToken"
            self._keys[who] = {f"AWS_{name}": answer[given] for name, given in names.items()}
        return self._keys[who]


@contextmanager
def aws_site(folder: Path, source: Path, plane: ControlPlane) -> Iterator[AwsSite]:
    """Start a site, with a clone of a repository that has two models, and stop it.

    Args:
        folder: an empty folder.
        source: the repository to clone.
        plane: the cluster; its Argo Rollouts must run.
    """
    home = folder / "home"
    home.mkdir(mode=0o700)
    project = own_clone(Project(source), folder / "source", without=(CENSUS,))
    _add_second_model(project)
    take_releases_back(project)
    hub = Hub(home)
    hub.create(project.root, REPOSITORY, RepositorySettings(users=(PERSON,)))
    project = Project(hub.clone(folder / "clone", PERSON))
    (project.root / ".venv").symlink_to(Path(sys.executable).parents[1])
    account = start(home / "aws", region=project.stack(project.environments[0]).config.region)
    try:
        issuer = Issuer(home / "github", published_keys(account.home / ISSUERS, ISSUER))
        path = f"{hub.server.bin}{os.pathsep}{_tools(folder / 'bin', home, plane)}"
        site = AwsSite(project.root, home, account, plane, hub, issuer, path, backend=f"file://{home}")
        _create_clusters(site)
        yield site
    finally:
        account.stop()


def _tools(binaries: Path, home: Path, plane: ControlPlane) -> str:
    """Install the tools of the target `aws`, and return the PATH with them."""
    is_official = OFFICIAL in os.environ
    link_binaries(binaries, ("pulumi",) if is_official else PULUMI)
    tools = os.pathsep.join((str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]))
    plugins = install(home, tools)
    if is_official:
        (plugins / AWS_PLUGIN).unlink()
    aws = shutil.which("aws") or "aws"
    write_executable(plugins / "aws", "laptop.conformance.eks_command", [str(plane.kubeconfig), aws])
    return f"{plugins}{os.pathsep}{tools}"


def _create_clusters(site: AwsSite) -> None:
    """Create the EKS clusters that the environments name; all of them stand for the one that runs here."""
    declare_clusters(site.account.home, site.plane.kubeconfig, declared_clusters(site.project))


def _add_second_model(project: Project) -> None:
    """Add a second model: a copy of the sample under another name."""
    folder = project.root / "models"
    shutil.copytree(folder / _MODEL, folder / _SECOND)
    for file in (folder / _SECOND).rglob("*.yaml"):
        file.write_text(file.read_text().replace(f": {_MODEL}", f": {_SECOND}"))
