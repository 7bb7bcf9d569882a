"""One lease for each model of an environment: only its holder moves the model's traffic.

A deployment waits for the holder to end. A rollback or a stop does not: it takes the lease from a deployment, which
then ends without recording or moving anything. Two rollbacks never run at once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Literal

from lightkube import Client
from pydantic import ValidationError

from pipelines.cluster.connection import connect
from pipelines.cluster.leases import LeaseState, read_lease, write_lease
from pipelines.cluster.rollouts import OvertakenError
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.attempt import Log
from pipelines.targets.held_stack import ended_on_github
from pipelines.targets.stack_lock import Holder, Liveness, LockFacts, describe_holder, judge_locks
from pipelines.targets.this_process import describe_this_process, start_time

LEASE_SECONDS = 120
"""Seconds after which a lease that is not renewed is free. The clocks of two machines may differ by less than this."""

RENEW_SECONDS = 20.0
POLL_SECONDS = 1.0

PATIENCE_SECONDS = 1800.0
"""Seconds that a deployment waits for a rollback or another deployment."""

Verb = Literal["deploy", "rollback", "stop"]


class TrafficHeldError(MlopsError):
    """Another command moves the traffic of this model."""


class LeaseDecision(Enum):
    """What to do about a lease."""

    TAKE = "take"
    WAIT = "wait"
    REFUSE = "refuse"


def decide(state: LeaseState, holder: Liveness, theirs: str, ours: Verb, now: datetime) -> LeaseDecision:
    """Decide whether a command may take a lease.

    Args:
        state: the lease.
        holder: whether its holder runs, as far as is known.
        theirs: the command of the holder; "" if it is not known.
        ours: the command that wants the lease.
        now: the time.
    """
    if state.is_free(now) or holder is Liveness.ENDED:
        return LeaseDecision.TAKE
    if ours == "deploy":
        return LeaseDecision.WAIT
    return LeaseDecision.TAKE if theirs == "deploy" else LeaseDecision.REFUSE


@dataclass
class TrafficHold:
    """The lease of a model, held by this process.

    Attributes:
        namespace, name: the Lease.
        identity: identity of this holder.
        lost_to: who took it, in words; "" while it is held.
    """

    namespace: str
    name: str
    identity: str
    lost_to: str = ""
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    def check(self) -> None:
        """Raise an error if another command has taken the lease.

        Raises:
            OvertakenError: the lease is lost.
        """
        if self.lost_to:
            raise OvertakenError(f"{self.lost_to} took over the traffic", fix="look at `mlops history`")

    def confirm(self) -> None:
        """Read the lease, and raise an error if another command has taken it.

        Raises:
            OvertakenError: the lease is lost.
            MlopsError: the cluster rejects the request.
        """
        with connect(self.namespace) as client:
            self.note(read_lease(client, self.name))
        self.check()

    def note(self, state: LeaseState) -> None:
        """Note who holds the lease, as it was read."""
        if state.identity != self.identity:
            holder = _holder_of(state)
            self.lost_to = describe_holder(holder).rstrip(",") if holder else "another command"

    def end(self) -> None:
        """Stop renewing the lease."""
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when the lease is no longer to be renewed."""
        return self._over.wait(seconds)


@contextmanager
def hold_traffic(
    descriptor: EnvironmentDescriptor,
    model: str,
    verb: Verb,
    root: Path,
    log: Log,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[TrafficHold]:
    """Hold the lease of a model during the block.

    Args:
        descriptor: the environment.
        model: the model's name.
        verb: the command. A deployment waits for the holder; the others take the lease from a deployment.
        root: a clone of the repository whose workflows hold leases.
        log: receives a line if another command holds the lease.
        patience_seconds: how long to wait.

    Raises:
        TrafficHeldError: another command holds the lease; the message names it.
        MlopsError: the cluster rejects the request.
    """
    hold = TrafficHold(descriptor.namespace, f"traffic-{model}", secrets.token_hex(16))
    here = describe_this_process(verb)
    with connect(descriptor.namespace) as client:
        _take(client, hold, here, verb, root, log, f"{model} in {descriptor.name}", patience_seconds)
    renewing = threading.Thread(target=_keep, args=(hold, here), daemon=True)
    renewing.start()
    try:
        yield hold
    finally:
        hold.end()
        renewing.join()
        if not hold.lost_to:
            try:
                with connect(descriptor.namespace) as client:
                    state = read_lease(client, hold.name)
                    if state.identity == hold.identity:
                        write_lease(client, hold.name, state, "", state.record, 1)
            except MlopsError as error:
                log(f"the lease {hold.name} could not be released, and expires in {LEASE_SECONDS} s: {error.what}")


def _take(
    client: Client, hold: TrafficHold, here: Holder, verb: Verb, root: Path, log: Log, what: str, patience: float
) -> None:
    until, said = time.monotonic() + patience, ""
    while True:
        state = read_lease(client, hold.name)
        holder = _holder_of(state)
        theirs = holder.operation if holder else ""
        decision = decide(state, _liveness(holder, here, root), theirs, verb, _now())
        who = describe_holder(holder).rstrip(",") if holder else f"someone else (lease {hold.name})"
        if decision is LeaseDecision.TAKE and write_lease(
            client, hold.name, state, hold.identity, here.model_dump_json(), LEASE_SECONDS
        ):
            if not state.is_free(_now()):
                log(f"took the traffic of {what} over from {who}")
            return
        if decision is LeaseDecision.REFUSE or time.monotonic() > until:
            raise TrafficHeldError(
                f"the traffic of {what} is held: {who} moves it",
                fix="wait until it has ended. Run this again only if the bundle that is live then is bad: "
                "`mlops history` shows it",
            )
        if decision is LeaseDecision.WAIT and who != said:
            log(f"waiting for {who}, which moves the traffic of {what}")
            said = who
        time.sleep(POLL_SECONDS)


def _keep(hold: TrafficHold, here: Holder) -> None:
    """Renew a lease until it is released, and note who took it."""
    while not hold.wait(min(RENEW_SECONDS, LEASE_SECONDS / 3)):
        try:
            with connect(hold.namespace) as client:
                state = read_lease(client, hold.name)
                hold.note(state)
                if hold.lost_to:
                    return
                write_lease(client, hold.name, state, hold.identity, here.model_dump_json(), LEASE_SECONDS)
        except MlopsError:
            continue  # the cluster does not answer: the lease lasts for a while


def _holder_of(state: LeaseState) -> Holder | None:
    """Return the holder of a lease, or the last one if it is free; None if it left no record."""
    try:
        return Holder.model_validate_json(state.record) if state.record else None
    except ValidationError:
        return None


def _liveness(holder: Holder | None, here: Holder, root: Path) -> Liveness:
    if holder is None:
        return Liveness.UNKNOWN
    ended = None
    if holder.job is not None and holder.machine != here.machine:
        ended = ended_on_github(root, holder.job)
    return judge_locks(LockFacts(holder, (), here, start_time, ended))[0].liveness


def _now() -> datetime:
    return datetime.now(UTC)
