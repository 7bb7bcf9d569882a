"""The local target: an emulated AWS account and a small cluster on this machine, reached by the standard variables."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from laptop.supervisor import DESCRIPTION, hold
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from laptop.engine.provider import Provider

REGION = "eu-west-1"
"""Of an account for a folder that declares no environment."""

_OF_ONE_INCARNATION = (
    DESCRIPTION,
    "kubeconfig",
    "aws/account.json",
    "aws/config",
    "aws/credentials",
    "aws/pod-identity-credentials",
    "aws/pod-identity.json",
)
_STOP_WITHIN = 20.0  # seconds
_ENDING_WITHIN = 10.0  # seconds that a supervisor which has begun to end may take
# The processes that this one started, so that their ends are taken note of and their pipes stay open.
_started: dict[Path, subprocess.Popen[bytes]] = {}


IDENTITY = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
)
"""The variables that say who one is to AWS."""


@dataclass(frozen=True)
class LocalTarget:
    """A running local target.

    Attributes:
        home: its files.
        root: the repository that it was started for.
        aws_endpoint: base URL of every AWS service.
        kubernetes_endpoint: base URL of the Kubernetes API.
        incarnation: changes whenever it starts anew, for it keeps nothing.
        time_scale: rollout pauses last this share of what they declare.
        region: of the account.
        pids: process → id.
        was_running: `start` found it there and did nothing.
        forgotten: the stacks of an earlier incarnation whose state `start` removed.
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

    def environ(self) -> dict[str, str]:
        """The standard variables by which AWS SDKs, boto3 and Kubernetes clients reach it as its operator."""
        return {
            "AWS_ENDPOINT_URL": self.aws_endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws" / "credentials"),
            "AWS_CONFIG_FILE": str(self.home / "aws" / "config"),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "KUBECONFIG": str(self.home / "kubeconfig"),
        }

    def environ_of_caller(self) -> dict[str, str]:
        """The same, but in a job of a workflow: that is who it signed in as, and nobody if it did not."""
        if os.environ.get("GITHUB_ACTIONS") != "true":
            return self.environ()
        kept = {name: value for name, value in self.environ().items() if name not in IDENTITY}
        return {**kept, **{name: os.environ[name] for name in IDENTITY if name in os.environ}}

    def providers(self) -> dict[str, Provider]:
        """The providers by which the engine applies a stack here, by package."""
        from laptop.aws.provider import AwsProvider
        from laptop.kubernetes.provider import KubernetesProvider

        return {
            "aws": AwsProvider(self.environ_of_caller(), self.home / "aws"),
            "kubernetes": KubernetesProvider(self.home / "kubeconfig"),
        }


@dataclass(frozen=True)
class Status:
    """What `mlops laptop status` says; `str()` is for people.

    Attributes:
        target: the running target, or None.
        healthy: both of its processes answer.
        stacks: the stacks that have state.
        pods: phase → how many pods.
        rollouts: `namespace/name` → phase.
        not_acted_upon: what the cluster keeps and does not act upon.
    """

    target: LocalTarget | None
    healthy: bool = False
    stacks: tuple[str, ...] = ()
    pods: Mapping[str, int] = field(default_factory=dict)
    rollouts: Mapping[str, str] = field(default_factory=dict)
    not_acted_upon: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.target is None:
            return "The local target is not running."
        target = self.target
        pids = ", ".join(f"{name} {pid}" for name, pid in target.pids.items())
        lines = [
            f"The local target is {'running' if self.healthy else 'NOT ANSWERING'} ({pids}).",
            f"AWS        {target.aws_endpoint} ({target.region})",
            f"Kubernetes {target.kubernetes_endpoint}",
            f"Home       {target.home}",
            f"Root       {target.root}",
            f"Time scale {target.time_scale:g} (pauses last this share of what they declare)",
            f"Stacks     {', '.join(self.stacks) or 'none'}",
            f"Pods       {', '.join(f'{count} {phase}' for phase, count in sorted(self.pods.items())) or 'none'}",
        ]
        lines += [f"Rollout    {name}: {phase}" for name, phase in sorted(self.rollouts.items())]
        if self.not_acted_upon:
            lines.append(f"Kept, not acted upon: {', '.join(self.not_acted_upon)}")
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
) -> LocalTarget:
    """Starts the local target and waits until it answers; one that runs already is returned as it is.

    Args:
        home: the folder for its files; secrets in it are readable by the owner only.
        root: the repository that it was started for.
        time_scale: rollout pauses last this share of what they declare; 0 < time_scale <= 1.
        attached: it ends with this process. Otherwise it survives, until `stop`.
        region: of the account; None: where the first environment of `root` is, or `REGION` where it declares none.
        aws_port, kubernetes_port: where to listen on 127.0.0.1; 0 takes a free port.

    Raises:
        MlopsError: a port is in use, it did not come up, or it runs already with another root or time scale; or what
            `root` declares of its environments is wrong.
        ValueError: `time_scale` is out of its range.
    """
    if not 0 < time_scale <= 1:
        raise ValueError(f"time_scale must be above 0 and at most 1, not {time_scale}")
    home, root = home.resolve(), root.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(home):
        running = _running(home)
        if running is not None:
            return _same(running, root, time_scale)
        forgotten = _forget(home)
        region = region or _region_of(root)
        arguments = [home, root, time_scale, region, aws_port, kubernetes_port, "attached" if attached else "detached"]
        with (home / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "laptop.supervisor", *map(str, arguments)],
                stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _import_path()},
            )
        _started[home] = process
        assert process.stdout is not None
        with process.stdout as answers:
            answer = json.loads(answers.readline() or b"{}")
        if "ready" not in answer:
            process.wait()
            _close(_started.pop(home))
            raise MlopsError(
                answer.get("error") or "the local target did not start",
                fix=answer.get("fix") or f"read {home / 'supervisor.log'}.",
            )
        return _described(home, forgotten=forgotten)


def find(home: Path) -> LocalTarget:
    """The running local target; raises MlopsError when there is none."""
    running = _running(home.resolve())
    if running is None:
        raise MlopsError(f"no local target is running (looked in {home})", fix="start it: `mlops laptop start`.")
    return running


def stop(home: Path) -> tuple[str, ...]:
    """Ends the local target with everything that runs in it, and waits for it. Doing it twice is no error.

    The account keeps nothing, so the state of the stacks that stood in it is removed.

    Returns:
        The names of those stacks.

    Raises:
        MlopsError: it does not end.
    """
    home = home.resolve()
    if not home.exists():
        return ()
    with _alone(home):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _signal_and_wait(home, number):
                break
        else:
            raise MlopsError(
                f"the local target of {home} does not end", fix=f"end the processes in {home / DESCRIPTION}."
            )
        return _forget(home)


def status(home: Path) -> Status:
    """Whether the local target runs, where, and what runs in it."""
    home = home.resolve()
    running = _running(home)
    if running is None:
        return Status(None)
    about = _ask_cluster(home)
    healthy = about is not None and _account_answers(running)
    about = about or {}
    return Status(
        target=running,
        healthy=healthy,
        stacks=tuple(path.stem for path in _states(home)),
        pods=about.get("pods", {}),
        rollouts=about.get("rollouts", {}),
        not_acted_upon=tuple(about.get("notActedUpon", ())),
    )


def _running(home: Path) -> LocalTarget | None:
    """The target whose supervisor holds the lock and has said that both are up; else None."""
    deadline = time.monotonic() + _ENDING_WITHIN
    while home.exists() and not _is_free(home):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _described(home, was_running=True)
        if time.monotonic() > deadline:  # neither up nor gone
            return None
        time.sleep(0.05)  # it is coming up, or going down
    return None


def _described(home: Path, *, was_running: bool = False, forgotten: tuple[str, ...] = ()) -> LocalTarget:
    said: dict[str, Any] = json.loads((home / DESCRIPTION).read_text())
    return LocalTarget(
        home=home,
        root=Path(said["root"]),
        aws_endpoint=said["awsEndpoint"],
        kubernetes_endpoint=said["kubernetesEndpoint"],
        incarnation=said["incarnation"],
        time_scale=said["timeScale"],
        region=said["region"],
        pids=said["pids"],
        was_running=was_running,
        forgotten=forgotten,
    )


def _region_of(root: Path) -> str:
    """One account has one region here: where environments are in several, the first one's."""
    project = Project(root)
    return project.stack(project.environments[0]).config.region if project.environments else REGION


def _same(running: LocalTarget, root: Path, time_scale: float) -> LocalTarget:
    for what, wanted, found in (("root", root, running.root), ("time scale", time_scale, running.time_scale)):
        if wanted != found:
            raise MlopsError(
                f"the local target of {running.home} runs already, with the {what} {found}, not {wanted}",
                fix="stop it first: `mlops laptop stop`.",
            )
    return running


def _import_path() -> str:
    """Lets the new processes import what this one runs, wherever they are started."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keeps two commands from starting or stopping at the same time."""
    with (home / "command.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_free(home: Path) -> bool:
    """Whether no supervisor lives; the kernel frees its lock however it dies."""
    lock = hold(home)
    if lock is None:
        return False
    os.close(lock)
    return True


def _signal_and_wait(home: Path, number: int) -> bool:
    """Signals the supervisor, if one lives, and waits for its end and its two children's; True when all are gone."""
    pids: dict[str, int] = {}
    if not _is_free(home):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pids = json.loads((home / DESCRIPTION).read_text())["pids"]
        started = _started.get(home)
        pid = pids.get("supervisor") or (started.pid if started else None)
        # The lock is held, so the number is still that of the supervisor.
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline = time.monotonic() + _STOP_WITHIN
    others = [pid for name, pid in pids.items() if name != "supervisor"]
    while time.monotonic() < deadline:
        if home in _started:
            _started[home].poll()
        if _is_free(home) and not any(_is_there(pid) for pid in others):
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


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the number belongs to somebody else by now
        return False
    return True


def _states(home: Path) -> list[Path]:
    return sorted((home / "state").glob("*.json"))


def _forget(home: Path) -> tuple[str, ...]:
    """Removes what described an account that is gone: its files, and the state of the stacks that stood in it."""
    for name in _OF_ONE_INCARNATION:
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "aws" / "images", ignore_errors=True)
    states = _states(home)
    for path in states:
        path.unlink(missing_ok=True)
    return tuple(path.stem for path in states)


def _ask_cluster(home: Path) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load((home / "kubeconfig").read_text())
        server = config["clusters"][0]["cluster"]["server"]
        request = urllib.request.Request(f"{server}/small-cluster")  # noqa: S310  our own process, on 127.0.0.1
        request.add_header("Authorization", f"Bearer {config['users'][0]['user']['token']}")
        with _direct().open(request, timeout=5) as answer:
            about: dict[str, Any] = json.load(answer)
            return about
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


def _account_answers(target: LocalTarget) -> bool:
    from laptop.aws.account import running

    account = running(target.home / "aws")
    return account is not None and target.incarnation.startswith(account.incarnation)


def _direct() -> urllib.request.OpenerDirector:
    """Opens URLs without a proxy that the environment may name."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
