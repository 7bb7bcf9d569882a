"""Start, find and stop the laptop: an AWS account and a Kubernetes cluster on 127.0.0.1."""

from __future__ import annotations

import base64
import configparser
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from filelock import FileLock

from laptop.cluster import FORK_SERVER
from laptop.delays import FILE, NONE, Delays
from laptop.supervisor import DESCRIPTION, is_running
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from laptop.engine.provider import Provider

REGION = "eu-west-1"
"""Region of the account for a folder that declares no environment."""

IDENTITY = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
)
"""Variables that identify the caller to AWS."""

ADMINISTRATOR = "MLOPS_LAPTOP_ADMINISTRATOR"
"""Variable that gives a shell on a realistic laptop administrator rights if it is 1."""

HOSTED = "github"
"""Folder of the hosted repository, its pull requests and runs, in the laptop's home."""

SET_ASIDE = "github.stopped"
"""Folder of the repository that was hosted when the laptop stopped."""

_OF_ONE_INCARNATION = (
    DESCRIPTION,
    "kubeconfig",
    "aws/account.json",
    "aws/config",
    "aws/credentials",
    "aws/eks-clusters.json",
    "aws/engineer-credentials",
    FILE,
    "faults.json",
    "aws/pod-identity-credentials",
    "aws/pod-identity.json",
)
_STOP_WITHIN = 20.0  # seconds
_ENDING_WITHIN = 10.0  # seconds that a supervisor may take to stop
# Supervisors that this process started: they are its children to reap, and their pipes must stay open.
_started: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Laptop:
    """A running laptop.

    Attributes:
        home: folder of its files.
        root: repository that it was started for.
        aws_endpoint: base URL of every AWS service.
        kubernetes_endpoint: base URL of the Kubernetes API.
        incarnation: changes with every start, because it keeps nothing.
        time_scale: factor applied to declared rollout pauses.
        region: region of the account.
        pids: name of a process → its id.
        was_running: True if `start` found it running.
        forgotten: stacks of an earlier incarnation whose state `start` removed.
        delays: delays of a realistic laptop.
        proxy: address of the HTTP proxy that stands in for the private network.
    """

    home: Path
    root: Path
    aws_endpoint: str
    kubernetes_endpoint: str
    incarnation: str
    time_scale: float
    region: str
    pids: Mapping[str, int]
    was_running: bool = False
    forgotten: tuple[str, ...] = ()
    delays: Delays = NONE
    proxy: str = ""

    def environ(self, *, administrator: bool = True) -> dict[str, str]:
        """Return the standard variables that connect AWS SDKs and Kubernetes clients to it.

        Args:
            administrator: with all rights in the account; otherwise as an engineer, who may look at everything and take
                the roles that trust people. Only a realistic laptop has engineers.
        """
        credentials = "credentials" if administrator or not self.delays else "engineer-credentials"
        return {
            "AWS_ENDPOINT_URL": self.aws_endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws" / credentials),
            "AWS_CONFIG_FILE": str(self.home / "aws" / "config"),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "KUBECONFIG": str(self.home / "kubeconfig"),
        }

    def environ_of_caller(self, caller: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return `environ`, but in a job of a workflow with the identity that the job signed in with, if any.

        Outside of a job, a realistic laptop gives administrator rights only if `ADMINISTRATOR` says so. `AWS_PROFILE`
        is kept if the laptop's own AWS configuration has that profile, for a role such as the one for landing.

        Args:
            caller: environment of the caller.
        """
        if caller.get("GITHUB_ACTIONS") != "true":
            environ = self.environ(administrator=caller.get(ADMINISTRATOR) == "1")
            profile = caller.get("AWS_PROFILE", "")
            return environ | ({"AWS_PROFILE": profile} if profile in self._profiles() else {})
        kept = {name: value for name, value in self.environ().items() if name not in IDENTITY}
        return {**kept, **{name: caller[name] for name in IDENTITY if name in caller}}

    def _profiles(self) -> set[str]:
        """Return the names of the profiles in the laptop's AWS configuration."""
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(self.home / "aws" / "config", encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # edited by a person; boto3 will say what is wrong
            return set()
        return {section.removeprefix("profile ") for section in parser.sections()}

    def providers(self) -> dict[str, Provider]:
        """Return the providers with which the engine applies a stack, by package."""
        from laptop.aws.aws_provider import AwsProvider
        from laptop.kubernetes.kubernetes_provider import KubernetesProvider

        return {
            "aws": AwsProvider(self.environ_of_caller(), self.home / "aws"),
            "kubernetes": KubernetesProvider(self.home / "kubeconfig"),
        }


@dataclass(frozen=True)
class Status:
    """Status that `mlops laptop status` prints.

    Attributes:
        laptop: running laptop, or None.
        healthy: True if both of its processes answer.
        stacks: stacks that have state.
        pods: phase → number of pods.
        rollouts: `namespace/name` → phase.
        not_acted_upon: features of Kubernetes that have no effect in the cluster.
    """

    laptop: Laptop | None
    healthy: bool = False
    stacks: tuple[str, ...] = ()
    pods: Mapping[str, int] = field(default_factory=dict)
    rollouts: Mapping[str, str] = field(default_factory=dict)
    not_acted_upon: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.laptop is None:
            return "The laptop is not running."
        laptop = self.laptop
        pids = ", ".join(f"{name} {pid}" for name, pid in laptop.pids.items())
        lines = [
            f"The laptop is {'running' if self.healthy else 'NOT ANSWERING'} ({pids}).",
            f"AWS        {laptop.aws_endpoint} ({laptop.region})",
            f"Kubernetes {laptop.kubernetes_endpoint}",
            f"Home       {laptop.home}",
            f"Root       {laptop.root}",
            f"Time scale {1 / laptop.time_scale:g} (rollout pauses and delays are divided by it)",
            f"Stacks     {', '.join(self.stacks) or 'none'}",
            f"Pods       {', '.join(f'{count} {phase}' for phase, count in sorted(self.pods.items())) or 'none'}",
        ]
        lines += [f"Rollout    {name}: {phase}" for name, phase in sorted(self.rollouts.items())]
        if laptop.delays:
            delays = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in laptop.delays.seconds.items())
            lines.append(f"Realistic  {delays}")
        if self.not_acted_upon:
            lines.append(f"No effect  {', '.join(self.not_acted_upon)}")
        return "\n".join(lines)


def start(
    home: Path,
    root: Path,
    *,
    time_scale: float = 1.0,
    attached: bool = False,
    region: str | None = None,
    aws_port: int = 0,
    kubernetes_port: int = 0,
    fork_server: bool = True,
    delays: Delays = NONE,
) -> Laptop:
    """Start the laptop and wait until it answers. If it is already running, return it.

    Args:
        home: folder for its files; secrets in it are readable by the owner only.
        root: repository to start it for.
        time_scale: factor applied to declared rollout pauses; 0 < time_scale <= 1.
        attached: end it with this process. Otherwise it runs until `stop`.
        region: region of the account. None: that of the first environment of `root`, or `REGION` if there is none.
        aws_port, kubernetes_port: ports on 127.0.0.1; 0 takes a free one.
        fork_server: fork pods from a process that has imported the large libraries, instead of starting a new Python
            for each. The variable `FORK_SERVER` turns it off too.
        delays: delays of a realistic laptop, after the time scale.

    Raises:
        MlopsError: a port is in use, it did not start, it is already running with another root, time scale or other
            delays, or an environment of `root` is not valid.
        ValueError: `time_scale` is out of range.
    """
    if not 0 < time_scale <= 1:
        raise ValueError(f"time_scale: expected more than 0 and at most 1, found {time_scale}")
    home, root = home.resolve(), root.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _command_lock(home):
        running = _running(home)
        if running is not None:
            return _unless_different(running, root, time_scale, delays)
        forgotten = _forget(home)
        if delays:
            delays.write(home)
        region = region or _region_of(root)
        arguments = [home, root, time_scale, region, aws_port, kubernetes_port, "attached" if attached else "detached"]
        environment = {**os.environ, "PYTHONPATH": _import_path()}
        if not fork_server:
            environment[FORK_SERVER] = "0"
        with (home / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "laptop.supervisor", *map(str, arguments)],
                stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        _started[home] = process
        assert process.stdout is not None
        with process.stdout as answers:
            answer = json.loads(answers.readline() or b"{}")
        if "ready" not in answer:
            process.wait()
            _close(_started.pop(home))
            raise MlopsError(
                answer.get("error") or "the laptop did not start",
                fix=answer.get("fix") or f"read {home / 'supervisor.log'}.",
            )
        return _described(home, forgotten=forgotten)


def find(home: Path) -> Laptop:
    """Return the running laptop.

    Raises:
        MlopsError: it is not running.
    """
    running = _running(home.resolve())
    if running is None:
        raise MlopsError(
            f"the laptop is not running (looked in {home})",
            fix="start it: `mlops laptop start`; if it was started from another folder, set MLOPS_HOME.",
        )
    return running


def stop(home: Path) -> tuple[str, ...]:
    """Stop the laptop and everything that runs on it, and wait until it has ended. Idempotent.

    The account keeps nothing, so the state of its stacks is removed. The hosted repository names bundles and roles of
    that account, so it is set aside, in `SET_ASIDE`.

    Returns:
        The names of those stacks.

    Raises:
        MlopsError: it did not end in time.
    """
    home = home.resolve()
    if not home.exists():
        return ()
    with _command_lock(home):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _signal_and_wait(home, number):
                break
        else:
            raise MlopsError(
                f"the laptop in {home} did not stop", fix=f"end the processes listed in {home / DESCRIPTION}."
            )
        return _forget(home)


def status(home: Path) -> Status:
    """Return the laptop's status, its endpoints and what runs on it."""
    home = home.resolve()
    running = _running(home)
    if running is None:
        return Status(None)
    facts = _cluster_facts(home)
    healthy = facts is not None and _account_answers(running)
    facts = facts or {}
    return Status(
        laptop=running,
        healthy=healthy,
        stacks=tuple(path.stem for path in _states(home)),
        pods=facts.get("pods", {}),
        rollouts=facts.get("rollouts", {}),
        not_acted_upon=tuple(facts.get("notActedUpon", ())),
    )


def _running(home: Path) -> Laptop | None:
    """Return the laptop whose supervisor is running and has reported it ready, or None."""
    deadline = time.monotonic() + _ENDING_WITHIN
    while home.exists() and is_running(home):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _described(home, was_running=True)
        if time.monotonic() > deadline:  # stuck
            return None
        time.sleep(0.05)  # it is starting or stopping
    return None


def _described(home: Path, *, was_running: bool = False, forgotten: tuple[str, ...] = ()) -> Laptop:
    facts: dict[str, Any] = json.loads((home / DESCRIPTION).read_text())
    return Laptop(
        home=home,
        root=Path(facts["root"]),
        aws_endpoint=facts["awsEndpoint"],
        kubernetes_endpoint=facts["kubernetesEndpoint"],
        incarnation=facts["incarnation"],
        time_scale=facts["timeScale"],
        region=facts["region"],
        pids=facts["pids"],
        was_running=was_running,
        forgotten=forgotten,
        delays=Delays.read(home),
        proxy=facts["proxy"],
    )


def _region_of(root: Path) -> str:
    """Return the region of the first environment: the account has one region."""
    project = Project(root)
    return project.stack(project.environments[0]).config.region if project.environments else REGION


def _unless_different(running: Laptop, root: Path, time_scale: float, delays: Delays) -> Laptop:
    for what, wanted, found in (
        ("root", root, running.root),
        ("time scale", f"{1 / time_scale:g}", f"{1 / running.time_scale:g}"),
        ("delays", dict(delays.seconds), dict(running.delays.seconds)),
    ):
        if wanted != found:
            raise MlopsError(
                f"the laptop in {running.home} is already running: expected the {what} {wanted}, found {found}",
                fix="stop it first: `mlops laptop stop`.",
            )
    return running


def _import_path() -> str:
    """Return a PYTHONPATH with which new processes import the same code as this one."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _command_lock(home: Path) -> FileLock:
    """Return the lock that keeps two commands from starting or stopping at the same time."""
    return FileLock(home / "command.lock")


def _signal_and_wait(home: Path, number: int) -> bool:
    """Signal the supervisor, if it runs, and return whether it and its two children have ended in time."""
    pids: dict[str, int] = {}
    if is_running(home):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pids = json.loads((home / DESCRIPTION).read_text())["pids"]
        started = _started.get(home)
        pid = pids.get("supervisor") or (started.pid if started else None)
        # The supervisor holds its lock, so the id is still its own.
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline = time.monotonic() + _STOP_WITHIN
    others = [pid for name, pid in pids.items() if name != "supervisor"]
    while time.monotonic() < deadline:
        if home in _started:
            _started[home].poll()
        if not is_running(home) and not any(psutil.pid_exists(pid) for pid in others):
            if home in _started:
                _close(_started.pop(home))
            return True
        time.sleep(0.02)
    return False


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.wait()


def _states(home: Path) -> list[Path]:
    return sorted((home / "state").glob("*.json"))


def _forget(home: Path) -> tuple[str, ...]:
    """Remove the files that describe a stopped account and its stacks, and set the hosted repository aside."""
    for name in _OF_ONE_INCARNATION:
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "aws" / "images", ignore_errors=True)
    if (home / HOSTED).is_dir():
        shutil.rmtree(home / SET_ASIDE, ignore_errors=True)
        (home / HOSTED).rename(home / SET_ASIDE)
    states = _states(home)
    for path in states:
        path.unlink(missing_ok=True)
    return tuple(path.stem for path in states)


def _cluster_facts(home: Path) -> dict[str, Any] | None:
    """Return the facts that the cluster serves, or None if it does not answer."""
    from laptop.cluster.api_server import DESCRIBE

    try:
        config = yaml.safe_load((home / "kubeconfig").read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        request = urllib.request.Request(f"{cluster['server']}{DESCRIBE}")  # noqa: S310  our own process
        request.add_header("Authorization", f"Bearer {user['token']}")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # bypasses proxies set in the environment
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)),
        )
        with opener.open(request, timeout=5) as answer:
            facts: dict[str, Any] = json.load(answer)
            return facts
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


def _account_answers(laptop: Laptop) -> bool:
    from laptop.aws.account import running

    account = running(laptop.home / "aws")
    return account is not None and laptop.incarnation.startswith(account.incarnation)
