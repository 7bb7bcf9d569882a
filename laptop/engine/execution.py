"""One run over a stack: each registration is decided and carried out when it arrives, deletions come last.

The same code plans and applies. A plan works on a ledger in memory and asks providers to check and compare only;
what it cannot know yet is `UNKNOWN`.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from laptop.engine.deletion import Deletion
from laptop.engine.ledger import Ledger
from laptop.engine.paths import keep_ignored, parse_path, write_path
from laptop.engine.plan import (
    Decision,
    Registration,
    decide,
    dependents_to_replace,
    refuse_deletion,
    without_unknowns,
)
from laptop.engine.policy import PlannedResource
from laptop.engine.provider import Created, Diff, Provider, Providers, is_provider
from laptop.engine.report import Report
from laptop.engine.resources import Pending, ResourceState
from laptop.engine.steps import Kind, Step, describe_changes
from laptop.engine.urns import STACK_TYPE, older_urns
from laptop.engine.values import Properties, has_unknown, known_only, secret_outputs, still_secret
from pipelines.declarations.errors import MlopsError

NOTHING = Properties({})
STACK_REFERENCE_TYPE = "pulumi:pulumi:StackReference"


@dataclass(frozen=True)
class Outcome:
    """What the program gets back for a registration; an empty id is one not known yet."""

    id: str = ""
    outputs: Properties = NOTHING
    failed: bool = False


@dataclass(frozen=True)
class _Checked:
    """The inputs of a registration as the provider completes them.

    Attributes:
        unknown: the top-level inputs that are not known yet.
    """

    inputs: Properties
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Interrupted:
    """A creation that an earlier run began, and that is still open.

    Attributes:
        inputs: what was asked for then, with the auto-names.
        may_exist: it may have happened, so a new one has to look for what is there.
    """

    inputs: dict[str, Any]
    may_exist: bool


class Execution:
    """Carries out one run.

    Args:
        ledger: the state of the stack; its contents are changed.
        providers: who applies which resource type.
        report: where the steps are noted.
        applying: False plans only.
        parallel: the most deletions at once.
        stack_reference: gives the outputs of another stack by its full name; raises MlopsError when unknown.
    """

    def __init__(
        self,
        ledger: Ledger,
        providers: Providers,
        report: Report,
        *,
        applying: bool,
        parallel: int,
        stack_reference: Callable[[str], Properties],
    ) -> None:
        self.ledger = ledger
        self.applying = applying
        self.stack_outputs = NOTHING
        self._providers = providers
        self._report = report
        self._stack_reference = stack_reference
        self._stopped = threading.Event()
        self._deletion = Deletion(
            ledger, providers, report, applying=applying, parallel=parallel, stopped=self._stopped
        )
        self._lock = threading.RLock()
        self._busy: dict[str, threading.Lock] = {}
        self._planned: dict[str, PlannedResource] = {}
        self._older: dict[str, tuple[str, ...]] = {}
        self._seen: set[str] = set()
        self._failed: set[str] = set()
        self._replaced: set[str] = set()
        self._deleted_first: set[str] = set()

    @property
    def planned(self) -> tuple[PlannedResource, ...]:
        """Every resource registered so far, for the policies."""
        with self._lock:
            return tuple(self._planned.values())

    def stop(self) -> None:
        """Begins nothing new from here on; what is under way ends."""
        self._stopped.set()

    # What arrives from the program ------------------------------------------------------------------------

    def register(self, wanted: Registration) -> Outcome:
        """Decides and carries out one registration. A failure is noted in the report, never raised."""
        return self._attempt(wanted, lambda: self._carry_out(wanted))

    def read(self, wanted: Registration, identity: str) -> Outcome:
        """Reads a resource that the stack does not manage (`Resource.get`, a stack reference)."""
        return self._attempt(wanted, lambda: self._read(wanted, identity))

    def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Keeps the outputs of a component or of the stack; one that failed to become known stays as it was."""
        known = self.ledger.known(urn)
        if known is None:
            return
        kept = known_only(outputs)
        if known.type == STACK_TYPE:
            self.stack_outputs = outputs
            lost = (outputs.values.keys() - kept.values.keys()) & known.outputs.values.keys()
            kept = Properties(
                {**kept.values, **{key: known.outputs.values[key] for key in sorted(lost)}},
                kept.secrets | {path for path in known.outputs.secrets if path[0] in lost},
            )
        if known.outputs != kept:
            self.ledger.put(replace(known, outputs=kept))

    def _attempt(self, wanted: Registration, action: Callable[[], Outcome]) -> Outcome:
        began = time.monotonic()
        try:
            with self._alone(wanted.urn):
                self._begin(wanted)
                if wanted.needs() & self._failed:
                    self._failed.add(wanted.urn)
                    self._report.ended(Step(Kind.SKIPPED, wanted.urn))
                    return Outcome(failed=True)
                return action()
        except Exception as error:
            self._failed.add(wanted.urn)
            kind = Kind.CREATE if self.ledger.known(wanted.urn) is None else Kind.UPDATE
            self._report.failed(kind, wanted.urn, error, began)
            return Outcome(failed=True)

    def _alone(self, urn: str) -> AbstractContextManager[Any]:
        """Never two steps at once on one resource."""
        with self._lock:
            return self._busy.setdefault(urn, threading.Lock())

    def _begin(self, wanted: Registration) -> None:
        if self._stopped.is_set():
            raise MlopsError("stopped before its turn came", fix="run `up` again to go on.")
        with self._lock:
            if wanted.urn in self._seen:
                raise MlopsError(
                    f"two resources are called `{wanted.name}` and have type {wanted.type} and the same parent",
                    fix="give one of them another name.",
                )
            self._seen.add(wanted.urn)
            older = older_urns(wanted.urn, wanted.parent, wanted.aliases, self._older.get(wanted.parent, ()))
            self._older[wanted.urn] = older
            self._planned[wanted.urn] = PlannedResource.of(wanted)
            if self.ledger.known(wanted.urn) is not None:
                return
            before = next((urn for urn in older if urn not in self._seen and self.ledger.known(urn) is not None), None)
        if before is not None:
            self.ledger.change(lambda contents: contents.rename(before, wanted.urn))

    def _carry_out(self, wanted: Registration) -> Outcome:
        old = self.ledger.known(wanted.urn)
        if not wanted.custom or is_provider(wanted.type):
            return self._keep(wanted, old)
        provider = self._providers.serving(wanted.type)
        old, interrupted = self._take_up(wanted.urn, old, provider)
        checked = self._check(wanted, provider, old, interrupted)
        decision = decide(
            old,
            wanted.options,
            self._compare(wanted, provider, old, checked),
            replaced=frozenset(self._replaced),
            unfinished_update=("update", wanted.urn, "") in self.ledger.pending(),
        )
        with self._lock:
            self._planned[wanted.urn] = replace(self._planned[wanted.urn], inputs=checked.inputs.values)
        if decision.kind is Kind.IMPORT:
            return self._import(wanted, provider, checked)
        if decision.kind is Kind.CREATE or old is None:
            kind = Kind.REPLACE if wanted.urn in self._deleted_first else Kind.CREATE
            may_exist = interrupted is not None and interrupted.may_exist
            return self._create(Step(kind, wanted.urn), wanted, provider, checked, resuming=may_exist)
        if decision.kind is Kind.SAME:
            return self._leave(wanted, old, checked)
        if decision.kind is Kind.UPDATE:
            return self._update(wanted, provider, checked, old, decision)
        return self._replace(wanted, provider, checked, old, decision)

    # What a registration asks for -------------------------------------------------------------------------

    def _check(
        self,
        wanted: Registration,
        provider: Provider,
        old: ResourceState | None,
        interrupted: _Interrupted | None = None,
    ) -> _Checked:
        """Inputs as the provider completes them; what is not known yet is left as it is."""
        values, secrets = wanted.inputs.values, wanted.inputs.secrets
        before = interrupted.inputs if interrupted is not None else None
        if old is not None and not old.external:
            before = old.inputs.values
            if wanted.options.ignore_changes:
                values = keep_ignored(values, before, wanted.options.ignore_changes)
                secrets |= old.inputs.secrets
        unknown = tuple(key for key, value in values.items() if has_unknown(value))
        if unknown and before is None:
            # Without an older version there is nothing sound to put in the place of what is not known.
            return _Checked(Properties(values, still_secret(secrets, values)), unknown)
        known = without_unknowns(values, unknown, before or {})
        checked = provider.check(wanted.type, wanted.name, copy.deepcopy(known), copy.deepcopy(before))
        checked = {**checked, **{key: values[key] for key in unknown}}
        return _Checked(Properties(checked, still_secret(secrets, checked)), unknown)

    def _compare(
        self, wanted: Registration, provider: Provider, old: ResourceState | None, checked: _Checked
    ) -> Diff | None:
        if old is None or old.external:
            return None
        known = {key: value for key, value in checked.inputs.values.items() if key not in checked.unknown}
        before, after, outputs = copy.deepcopy((old.inputs.values, known, old.outputs.values))
        diff = provider.diff(wanted.type, before, after, outputs)
        unknown = [write_path((key,)) for key in checked.unknown]
        return replace(diff, changed=tuple(dict.fromkeys([*diff.changed, *unknown])))

    def _described(
        self, wanted: Registration, inputs: Properties, id_: str = "", outputs: Properties = NOTHING
    ) -> ResourceState:
        return ResourceState(
            urn=wanted.urn,
            custom=wanted.custom,
            id=id_,
            inputs=inputs,
            outputs=outputs,
            parent=wanted.parent,
            dependencies=wanted.dependencies,
            property_dependencies=wanted.property_dependencies,
            provider=wanted.provider,
            protect=wanted.options.protect,
            retain_on_delete=wanted.options.retain_on_delete,
            deleted_with=wanted.options.deleted_with,
            secret_names=wanted.options.additional_secret_outputs,
        )

    # What an earlier run left open ------------------------------------------------------------------------

    def _take_up(
        self, urn: str, old: ResourceState | None, provider: Provider
    ) -> tuple[ResourceState | None, _Interrupted | None]:
        """Ends what an earlier run began on this resource; gives the resource as it is then, and what stays open."""
        pending = self.ledger.pending()
        begun = pending.get(("create", urn, ""))
        if old is not None and ("delete", urn, old.id) in pending:
            if self.applying:
                self._deletion.delete(old)
            old = None
        if begun is None:
            return old, None
        if not self.applying:
            return old, _Interrupted(begun.resource.inputs.values, may_exist=False)
        try:
            return self._end_creation(begun.resource, provider, old), None
        except MlopsError as error:
            self._report.noticed(f"{urn}: an earlier run was stopped while it created this: {error}")
            return old, _Interrupted(begun.resource.inputs.values, may_exist=True)

    def _end_creation(self, begun: ResourceState, provider: Provider, old: ResourceState | None) -> ResourceState:
        values = copy.deepcopy(begun.inputs.values)
        done = _completed(begun, provider.create(begun.urn, begun.type, values, resuming=True))
        self.ledger.created(done, old)
        self._report.noticed(f"{begun.urn}: took up the creation that an earlier run did not finish")
        return done

    def _end_leftovers(self) -> None:
        """Creations that an earlier run began, of resources that the program no longer has."""
        for item in self.ledger.pending().values():
            draft = item.resource
            if item.kind != "create" or draft.urn in self._seen:
                continue
            try:
                self._end_creation(draft, self._providers.serving(draft.type), self.ledger.known(draft.urn))
            except MlopsError as error:
                self._report.noticed(f"{draft.urn}: an earlier run was stopped while it created this: {error}")
                self.ledger.forget(item)

    # The steps --------------------------------------------------------------------------------------------

    def _keep(self, wanted: Registration, old: ResourceState | None) -> Outcome:
        """Components and explicit providers: kept in the state, nothing at the target."""
        inputs = known_only(wanted.inputs)
        kind = Kind.CREATE if old is None else Kind.SAME
        if wanted.custom:
            self._providers.serving(wanted.type)
            identity = str(uuid.uuid5(uuid.NAMESPACE_URL, wanted.urn)) if old is None else old.id
            new = self._described(wanted, inputs, identity, inputs)
            if old is not None and old.inputs != inputs:
                kind = Kind.UPDATE
        else:
            new = self._described(wanted, inputs, outputs=inputs if old is None else old.outputs)
        if new != old:
            self.ledger.put(new)
        self._report.ended(Step(kind, wanted.urn))
        return Outcome(new.id, wanted.inputs)

    def _leave(self, wanted: Registration, old: ResourceState, checked: _Checked) -> Outcome:
        """Nothing at the target changes; what the program says of it may."""
        names = wanted.options.additional_secret_outputs
        secrets = old.outputs.secrets | secret_outputs(checked.inputs, old.outputs.values, names)
        outputs = Properties(old.outputs.values, secrets)
        new = replace(self._described(wanted, checked.inputs, old.id, outputs), recorded=old.recorded)
        if new != old:
            self.ledger.put(new)
        self._report.ended(Step(Kind.SAME, wanted.urn, recorded=old.recorded))
        return Outcome(new.id, new.outputs)

    def _create(
        self,
        step: Step,
        wanted: Registration,
        provider: Provider,
        checked: _Checked,
        old: ResourceState | None = None,
        *,
        resuming: bool = False,
    ) -> Outcome:
        """Creates; `old` is the copy that it replaces and that still stands."""
        draft = self._described(wanted, checked.inputs)
        if not self.applying:
            return self._plan(step, replace(draft, outputs=checked.inputs), old)
        self._report.began(step)
        began = time.monotonic()
        values = copy.deepcopy(checked.inputs.values)
        created = self.ledger.ask(
            Pending("create", draft),
            lambda: provider.create(wanted.urn, wanted.type, values, resuming=resuming),
        )
        done = _completed(draft, created)
        self.ledger.created(done, old)
        return self._done(step, done, began)

    def _update(
        self, wanted: Registration, provider: Provider, checked: _Checked, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        if old.recorded:
            # Nothing stands at the target, so there is nothing to update.
            return self._create(Step(Kind.CREATE, wanted.urn, changes), wanted, provider, checked)
        step = Step(Kind.UPDATE, wanted.urn, changes)
        draft = self._described(wanted, checked.inputs, old.id, old.outputs)
        if not self.applying:
            return self._plan(step, replace(draft, outputs=_expected_outputs(old, checked.inputs, decision)))
        self._report.began(step)
        began = time.monotonic()
        before, after, outputs = copy.deepcopy((old.inputs.values, checked.inputs.values, old.outputs.values))
        # A failed update may have changed something: the note stays, so that the next run repeats it.
        created = self.ledger.ask(
            Pending("update", draft),
            lambda: provider.update(wanted.urn, wanted.type, old.id, before, after, outputs),
            keep=True,
        )
        done = _completed(draft, created)
        self.ledger.updated(done)
        return self._done(step, done, began)

    def _replace(
        self, wanted: Registration, provider: Provider, checked: _Checked, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        step = Step(Kind.REPLACE, wanted.urn, changes, decision.replaces)
        if decision.delete_first:
            self._delete_first(old)
        # The new copy gets names of its own: the old one still has its names while the new one is made.
        values = keep_ignored(wanted.inputs.values, old.inputs.values, wanted.options.ignore_changes)
        secrets = wanted.inputs.secrets | old.inputs.secrets
        anew = replace(wanted, inputs=Properties(values, still_secret(secrets, values)))
        checked = self._check(anew, provider, None)
        return self._create(step, wanted, provider, checked, None if decision.delete_first else old)

    def _delete_first(self, old: ResourceState) -> None:
        """Deletes a resource before its replacement comes, and before it those that must go with it."""
        resources = dict(self.ledger.contents.resources)
        going = [
            known
            for known in dependents_to_replace(old.urn, resources, self._must_follow)
            if known.urn not in self._seen
        ]
        for known in going:
            refuse_deletion(known)
        for known in going:
            with self._alone(known.urn):
                if known.urn not in self._seen:
                    self._deletion.remove(known, replaced=True)
                    self._deleted_first.add(known.urn)
        self._deletion.remove(old, replaced=True)

    def _must_follow(self, known: ResourceState, affected: frozenset[str]) -> bool:
        """Whether a change of these inputs would replace a resource; asked by leaving them out."""
        without = {key: value for key, value in known.inputs.values.items() if key not in affected}
        before, after, outputs = copy.deepcopy((known.inputs.values, without, known.outputs.values))
        return bool(self._providers.serving(known.type).diff(known.type, before, after, outputs).replace)

    def _import(self, wanted: Registration, provider: Provider, checked: _Checked) -> Outcome:
        """Takes over something that exists; its values must be those that the program asks for."""
        identity = wanted.options.import_id
        live = provider.read(wanted.type, identity, {}, {})
        if live is None:
            raise MlopsError(
                f"there is no {wanted.type} with the id `{identity}` to import",
                fix="correct the id in `import_`, or take the option out to create the resource.",
            )
        asked = {key: value for key, value in checked.inputs.values.items() if key not in checked.unknown}
        there = {key: live[key] for key in asked if key in live}
        diff = provider.diff(wanted.type, there, copy.deepcopy(asked), live)
        if diff.changed:
            listed = ", ".join(f"`{path}`" for path in diff.changed)
            raise MlopsError(
                f"what the program asks for differs from the {wanted.type} `{identity}` in {listed}",
                fix="make the program say what is there, import it, and change it afterwards.",
            )
        done = _completed(self._described(wanted, checked.inputs), Created(identity, live))
        self.ledger.put(done)
        self._report.ended(Step(Kind.IMPORT, wanted.urn))
        return Outcome(done.id, done.outputs)

    def _plan(self, step: Step, draft: ResourceState, old: ResourceState | None = None) -> Outcome:
        """What a plan gives the program: the outputs as far as they are known, the id only if it stays."""
        self.ledger.created(draft, old)
        return self._done(step, draft, time.monotonic())

    def _done(self, step: Step, done: ResourceState, began: float) -> Outcome:
        if step.kind is Kind.REPLACE:
            self._replaced.add(step.urn)
        held = self._providers.serving(done.type).recorded(done.type, known_only(done.inputs).values)
        recorded = done.recorded or held.get("", "")
        without = () if recorded else tuple(sorted((path, why) for path, why in held.items() if path))
        seconds = time.monotonic() - began
        self._report.ended(replace(step, recorded=recorded, without=without, seconds=seconds))
        return Outcome(done.id, done.outputs)

    def _read(self, wanted: Registration, identity: str) -> Outcome:
        if wanted.type == STACK_REFERENCE_TYPE:
            outputs = _of_other_stack(identity, self._stack_reference(identity))
        else:
            live = self._providers.serving(wanted.type).read(wanted.type, identity, wanted.inputs.values, {})
            if live is None:
                raise MlopsError(
                    f"there is no {wanted.type} with the id `{identity}`",
                    fix="correct the id, or create that resource first.",
                )
            names = wanted.options.additional_secret_outputs
            outputs = Properties(live, secret_outputs(wanted.inputs, live, names))
        new = replace(self._described(wanted, wanted.inputs, identity, outputs), external=True)
        if new != self.ledger.known(wanted.urn):
            self.ledger.put(new)
        self._report.ended(Step(Kind.READ, wanted.urn))
        return Outcome(identity, outputs)

    def finish(self) -> None:
        """Deletes what the program no longer has and what was replaced. After a failure nothing is deleted."""
        if self._report.failures or self._stopped.is_set():
            return
        if self.applying:
            self._end_leftovers()
        contents = self.ledger.contents
        gone = [known for known in contents.resources.values() if known.urn not in self._seen]
        self._deletion.delete_all([*gone, *contents.doomed.values()])


def _completed(draft: ResourceState, created: Created) -> ResourceState:
    """A resource as a provider left it."""
    if not created.id:
        raise TypeError(f"the provider returned an empty id for {draft.urn}")
    secrets = secret_outputs(draft.inputs, created.outputs, draft.secret_names)
    return replace(draft, id=created.id, outputs=Properties(created.outputs, secrets), recorded=created.recorded)


def _expected_outputs(old: ResourceState, inputs: Properties, decision: Decision) -> Properties:
    """The outputs that an update is expected to leave: as they were, save for the inputs that change."""
    changed = {str(parse_path(text)[0]) for text in decision.changed}
    values = {key: value for key, value in old.outputs.values.items() if key not in changed}
    values |= {key: value for key, value in inputs.values.items() if key in changed}
    return Properties(values, still_secret(old.outputs.secrets | inputs.secrets, values))


def _of_other_stack(name: str, found: Properties) -> Properties:
    """A stack reference, as the SDK expects it."""
    secret_names = sorted({str(path[0]) for path in found.secrets})
    return Properties(
        {"name": name, "outputs": found.values, "secretOutputNames": secret_names},
        frozenset(("outputs", *path) for path in found.secrets),
    )
