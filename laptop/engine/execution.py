"""One run over a stack: registrations are decided and executed as they arrive, deletions come last.

The same code plans and applies. A plan works on a journal in memory and only lets providers check and compare.
Values that it cannot know yet are `UNKNOWN`.
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

from infra.policies import UNKNOWN, PlannedResource
from laptop.engine.decisions import (
    Decision,
    Registration,
    decide,
    dependents_to_replace,
    in_creation_order,
    is_import,
    refuse_deletion,
    with_forced,
    without_unknowns,
)
from laptop.engine.deletion import Deletion
from laptop.engine.journal import Journal
from laptop.engine.paths import ignored_secrets, keep_ignored, parse_path, write_path
from laptop.engine.progress import RunReport
from laptop.engine.provider import (
    Created,
    Diff,
    Importing,
    Previewing,
    Provider,
    Providers,
    ResourceCall,
    is_provider,
)
from laptop.engine.resource_steps import ResourceStep, StepKind, describe_changes
from laptop.engine.resources import Pending, ResourceState
from laptop.engine.urns import STACK_TYPE, earlier_urns
from laptop.engine.values import Properties, has_unknown, known_only, secret_outputs, still_secret
from pipelines.declarations.errors import MlopsError

NOTHING = Properties({})
STACK_REFERENCE_TYPE = "pulumi:pulumi:StackReference"


@dataclass(frozen=True)
class Outcome:
    """Answer to a registration. An empty id means that it is not known yet."""

    id: str = ""
    outputs: Properties = NOTHING
    failed: bool = False


@dataclass(frozen=True)
class _Checked:
    """Inputs of a registration after the provider's check.

    Attributes:
        unknown: top-level inputs that are not known yet.
    """

    inputs: Properties
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Interrupted:
    """A create that an earlier run began and did not finish.

    Attributes:
        inputs: its inputs, with auto-names.
        may_exist: it may have happened, so the next create must look for an existing resource.
    """

    inputs: dict[str, Any]
    may_exist: bool


class Execution:
    """Executes one run.

    Args:
        journal: state of the stack; its contents are changed.
        providers: the providers by package.
        report: collects the steps.
        applying: False only plans.
        parallel: maximum number of deletions at once.
        stack_reference: returns the outputs of another stack by its full name; raises MlopsError if unknown.
    """

    def __init__(
        self,
        journal: Journal,
        providers: Providers,
        report: RunReport,
        *,
        applying: bool,
        parallel: int,
        stack_reference: Callable[[str], Properties],
    ) -> None:
        self.journal = journal
        self.applying = applying
        self.stack_outputs = NOTHING
        self._providers = providers
        self._report = report
        self._stack_reference = stack_reference
        self._stopped = threading.Event()
        self._deletion = Deletion(
            journal, providers, report, applying=applying, parallel=parallel, stopped=self._stopped
        )
        self._lock = threading.RLock()
        self._busy: dict[str, threading.Lock] = {}
        self._planned: dict[str, PlannedResource] = {}
        self._seen: set[str] = set()
        self._failed: set[str] = set()
        self._deleted_first: set[str] = set()
        self._replaced: set[str] = set()
        self._matched: dict[str, str] = {}  # present URN → earlier URN
        self._taken: dict[str, str] = {}  # earlier URN → present URN

    @property
    def planned(self) -> tuple[PlannedResource, ...]:
        """Return the resources registered so far with their outputs, as Pulumi gives them to stack policies."""
        with self._lock:
            return tuple(self._planned.values())

    def stop(self) -> None:
        """Start no new steps. Running steps finish."""
        self._stopped.set()

    # Requests of the program

    def register(self, wanted: Registration) -> Outcome:
        """Execute one registration. A failure goes into the report and is never raised."""
        return self._attempt(wanted, lambda: self._registered(wanted))

    def read(self, wanted: Registration, identity: str) -> Outcome:
        """Read a resource that the stack does not manage (`Resource.get`, a stack reference)."""
        return self._attempt(wanted, lambda: self._read(wanted, identity))

    def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Store the outputs of a component or of the stack. An output that stays unknown keeps its old value."""
        known = self.journal.known(urn)
        if known is None:
            return
        with self._lock:
            if urn in self._planned:
                self._planned[urn] = replace(self._planned[urn], props=outputs.values)
        kept = known_only(outputs)
        if known.type == STACK_TYPE:
            self.stack_outputs = outputs
            lost = (outputs.values.keys() - kept.values.keys()) & known.outputs.values.keys()
            kept = Properties(
                {**kept.values, **{key: known.outputs.values[key] for key in sorted(lost)}},
                kept.secrets | {path for path in known.outputs.secrets if path[0] in lost},
            )
        if known.outputs != kept:
            self.journal.put(replace(known, outputs=kept))

    def _attempt(self, wanted: Registration, action: Callable[[], Outcome]) -> Outcome:
        began = time.monotonic()
        self._report.hide(wanted.inputs)
        if (known := self.journal.known(wanted.urn)) is not None:
            self._report.hide(known.inputs, known.outputs)
        try:
            with self._alone(wanted.urn):
                self._begin(wanted)
                if wanted.needs() & self._failed:
                    self._failed.add(wanted.urn)
                    self._report.ended(ResourceStep(StepKind.SKIPPED, wanted.urn))
                    return Outcome(failed=True)
                return action()
        except Exception as error:
            self._failed.add(wanted.urn)
            kind = StepKind.CREATE if self.journal.known(wanted.urn) is None else StepKind.UPDATE
            self._report.failed(kind, wanted.urn, error, began)
            return Outcome(failed=True)

    def _alone(self, urn: str) -> AbstractContextManager[Any]:
        """Return the lock of a resource: one step at a time."""
        with self._lock:
            return self._busy.setdefault(urn, threading.Lock())

    def _begin(self, wanted: Registration) -> None:
        if self._stopped.is_set():
            raise MlopsError("not started: the run was stopped", fix="run `mlops up` again.")
        with self._lock:
            if wanted.urn in self._taken:
                raise _claimed_twice(wanted.urn, wanted.urn, self._taken[wanted.urn])
            if wanted.urn in self._seen:
                raise MlopsError(
                    f"duplicate resource: two of type {wanted.type} with the same parent are named `{wanted.name}`",
                    fix="rename one of them.",
                )
            self._seen.add(wanted.urn)

    def _registered(self, wanted: Registration) -> Outcome:
        """Execute a registration and note its outputs for the policies.

        A component has the outputs of its last run until it registers new ones.
        """
        self._find_renamed(wanted)
        before = self.journal.known(wanted.urn)
        outcome = self._execute(wanted)
        outputs = {} if before is None else before.outputs.values
        if wanted.custom:
            outputs = self._expected(wanted, outcome)
        planned = PlannedResource(wanted.type, wanted.name, wanted.urn, outputs, wanted.options.protect, wanted.parent)
        with self._lock:
            self._planned[wanted.urn] = planned
        return outcome

    def _expected(self, wanted: Registration, outcome: Outcome) -> dict[str, Any]:
        """Return the outputs as far as they are known, and `UNKNOWN` for what a create will compute."""
        outputs = outcome.outputs.values
        if outcome.id or is_provider(wanted.type):
            return outputs
        provider = self._providers.serving(wanted.type)
        computed = provider.computed(wanted.type) if isinstance(provider, Previewing) else ()
        return {**dict.fromkeys(computed, UNKNOWN), **outputs}

    def _execute(self, wanted: Registration) -> Outcome:
        old = self.journal.known(wanted.urn)
        if not wanted.custom or is_provider(wanted.type):
            return self._keep(wanted, old)
        provider = self._providers.serving(wanted.type)
        old, interrupted = self._take_up(wanted.urn, old, provider)
        if is_import(old, wanted.options):
            return self._import(wanted, provider, old)
        checked = self._check(wanted, provider, old, interrupted)
        decision = decide(
            old,
            wanted.options,
            self._compare(wanted, provider, old, checked),
            unfinished_update=("update", wanted.urn, "") in self.journal.pending(),
        )
        if decision.kind is StepKind.CREATE or old is None:
            kind = StepKind.CREATE
            if wanted.urn in self._deleted_first:
                kind = StepKind.REPLACE
                self._replaced.add(wanted.urn)
                self._deletion.deleted.discard(wanted.urn)
            may_exist = interrupted is not None and interrupted.may_exist
            return self._create(ResourceStep(kind, wanted.urn), wanted, provider, checked, resuming=may_exist)
        if decision.kind is StepKind.SAME:
            return self._leave(wanted, old, checked)
        if decision.kind is StepKind.UPDATE:
            return self._update(wanted, provider, checked, old, decision)
        return self._replace(wanted, provider, checked, old, decision)

    def _find_renamed(self, wanted: Registration) -> None:
        """Give a resource that the state has under an earlier name its present one.

        Raises:
            MlopsError: two resources of the program claim the same one of the state.
        """
        with self._lock:
            if self.journal.known(wanted.urn) is not None:
                return
            earlier = earlier_urns(wanted.urn, wanted.parent, wanted.aliases, self._matched)
            alias = next((urn for urn in earlier if urn in self._taken or self.journal.known(urn) is not None), None)
            if alias is None:
                return
            if alias in self._seen:
                raise _claimed_twice(wanted.urn, alias, self._taken.get(alias, alias))
            self._taken[alias] = wanted.urn
            self._matched[wanted.urn] = alias
            self._seen.add(alias)
        with self._alone(alias):
            if self.journal.known(alias) is not None:  # otherwise it was just deleted before a replacement
                self.journal.rename(alias, wanted.urn)

    # Decisions about a registration

    def _check(
        self,
        wanted: Registration,
        provider: Provider,
        old: ResourceState | None,
        interrupted: _Interrupted | None = None,
    ) -> _Checked:
        """Let the provider complete the inputs. Unknown inputs stay as they are."""
        values, secrets = wanted.inputs.values, wanted.inputs.secrets
        before = interrupted.inputs if interrupted is not None else None
        if old is not None and not old.external:
            before = old.inputs.values
            if wanted.options.ignore_changes:
                values = keep_ignored(values, before, wanted.options.ignore_changes)
                secrets = ignored_secrets(secrets, old.inputs.secrets, wanted.options.ignore_changes)
        unknown = tuple(key for key, value in values.items() if has_unknown(value))
        if unknown and before is None and isinstance(provider, Previewing):
            checked = provider.check(wanted.type, wanted.name, copy.deepcopy(values), None)
            return _Checked(Properties(checked, still_secret(secrets, checked)), unknown)
        if unknown and before is None:
            # There are no old values to stand in for the unknown ones.
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
        options = wanted.options
        if self._replaced & set(options.replace_with):
            return Diff(("replaceWith",), ("replaceWith",))
        if options.deleted_with in self._replaced:
            return Diff(("deletedWith",), ("deletedWith",))
        known = {key: value for key, value in checked.inputs.values.items() if key not in checked.unknown}
        diff = provider.diff(ResourceCall.about(old, old_inputs=old.inputs.values, inputs=known))
        unknown = [write_path((key,)) for key in checked.unknown]
        diff = replace(diff, changed=tuple(dict.fromkeys([*diff.changed, *unknown])))
        return with_forced(diff, options.replace_on_changes)

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
            secret_names=wanted.options.additional_secret_outputs,
            replace_on_changes=wanted.options.replace_on_changes,
            deleted_with=wanted.options.deleted_with,
            replace_with=wanted.options.replace_with,
            import_id=wanted.options.import_id,
        )

    # Steps that an earlier run left pending

    def _take_up(
        self, urn: str, old: ResourceState | None, provider: Provider
    ) -> tuple[ResourceState | None, _Interrupted | None]:
        """Finish the pending steps of a resource. Return the resource after that, and the create that is still open."""
        pending = self.journal.pending()
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
            self._report.noticed(f"{urn}: an earlier run stopped while creating this resource: {error}")
            return old, _Interrupted(begun.resource.inputs.values, may_exist=True)

    def _end_creation(self, begun: ResourceState, provider: Provider, old: ResourceState | None) -> ResourceState:
        call = ResourceCall.about(begun, resuming=True, configuration=self._configuration(begun))
        done = _completed(begun, provider.create(call))
        self.journal.created(done, old)
        self._report.noticed(f"{begun.urn}: finished the create of an earlier run")
        return done

    def _configuration(self, resource: ResourceState) -> dict[str, Any]:
        """Return the inputs of the explicit provider of a resource, or {} for the default provider."""
        explicit = self.journal.known(resource.provider.rpartition("::")[0]) if resource.provider else None
        return explicit.inputs.values if explicit else {}

    def _end_leftovers(self) -> None:
        """Finish pending creates of resources that the program no longer has."""
        for item in self.journal.pending().values():
            draft = item.resource
            if item.kind != "create" or draft.urn in self._seen:
                continue
            try:
                self._end_creation(draft, self._providers.serving(draft.type), self.journal.known(draft.urn))
            except MlopsError as error:
                self._report.noticed(f"{draft.urn}: an earlier run stopped while creating this resource: {error}")
                self.journal.forget(item)

    # Steps

    def _keep(self, wanted: Registration, old: ResourceState | None) -> Outcome:
        """Store a component or an explicit provider, which exist in the state only."""
        inputs = known_only(wanted.inputs)
        kind = StepKind.CREATE if old is None else StepKind.SAME if old.inputs == inputs else StepKind.UPDATE
        if wanted.custom:
            self._providers.serving(wanted.type)
            identity = str(uuid.uuid5(uuid.NAMESPACE_URL, wanted.urn)) if old is None else old.id
            new = self._described(wanted, inputs, identity, inputs)
        else:
            new = self._described(wanted, inputs, outputs=inputs if old is None else old.outputs)
        if new != old:
            self.journal.put(new)
        self._report.ended(ResourceStep(kind, wanted.urn))
        return Outcome(new.id, wanted.inputs)

    def _leave(self, wanted: Registration, old: ResourceState, checked: _Checked) -> Outcome:
        """Leave the resource unchanged, but store new options and dependencies."""
        names = wanted.options.additional_secret_outputs
        secrets = old.outputs.secrets | secret_outputs(checked.inputs, old.outputs.values, names)
        outputs = Properties(old.outputs.values, secrets)
        new = replace(self._described(wanted, checked.inputs, old.id, outputs), recorded=old.recorded)
        if new != old:
            self.journal.put(new)
        self._report.ended(ResourceStep(StepKind.SAME, wanted.urn, recorded=old.recorded))
        return Outcome(new.id, new.outputs)

    def _create(
        self,
        step: ResourceStep,
        wanted: Registration,
        provider: Provider,
        checked: _Checked,
        old: ResourceState | None = None,
        *,
        resuming: bool = False,
    ) -> Outcome:
        """Create a resource; `old` is the copy that it replaces, if it still exists."""
        draft = self._described(wanted, checked.inputs)
        if not self.applying:
            return self._plan(step, replace(draft, outputs=checked.inputs), old)
        self._report.began(step)
        began = time.monotonic()
        call = ResourceCall.about(draft, resuming=resuming, configuration=self._configuration(draft))
        created = self.journal.attempt(Pending("create", draft), lambda: provider.create(call))
        done = _completed(draft, created)
        self.journal.created(done, old)
        return self._done(step, done, began)

    def _import(self, wanted: Registration, provider: Provider, old: ResourceState | None) -> Outcome:
        """Take over an existing resource, then change what differs from the program."""
        if not isinstance(provider, Importing):
            raise MlopsError(
                f"{wanted.type} {wanted.name} cannot be imported: its provider does not import",
                fix="remove `import_` from its options.",
            )
        began = time.monotonic()
        identity = wanted.options.import_id
        live = provider.read(ResourceCall(wanted.type, {}, wanted.urn, identity))
        if live is None:
            raise _missing(wanted.type, identity)
        inputs = Properties(provider.imported_inputs(wanted.type, live))
        outputs = Properties(live, secret_outputs(inputs, live, wanted.options.additional_secret_outputs))
        found = self._described(wanted, inputs, identity, outputs)
        self.journal.created(found, old)
        self._report.ended(ResourceStep(StepKind.IMPORT, wanted.urn, seconds=time.monotonic() - began))
        checked = self._check(wanted, provider, found)
        decision = decide(found, wanted.options, self._compare(wanted, provider, found, checked))
        if decision.kind is StepKind.UPDATE:
            return self._update(wanted, provider, checked, found, decision)
        return Outcome(identity, outputs)

    def _update(
        self, wanted: Registration, provider: Provider, checked: _Checked, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        if old.recorded:
            # It exists in the state only, so there is nothing to update.
            return self._create(ResourceStep(StepKind.CREATE, wanted.urn, changes), wanted, provider, checked)
        step = ResourceStep(StepKind.UPDATE, wanted.urn, changes)
        draft = self._described(wanted, checked.inputs, old.id, old.outputs)
        if not self.applying:
            return self._plan(step, replace(draft, outputs=_expected_outputs(old, checked.inputs, decision)))
        self._report.began(step)
        began = time.monotonic()
        call = ResourceCall.about(draft, old_inputs=old.inputs.values)
        # A failed update may have changed something. Its note stays, so the next run repeats the update.
        created = self.journal.attempt(Pending("update", draft), lambda: provider.update(call), keep=True)
        done = _completed(draft, created)
        self.journal.updated(done)
        return self._done(step, done, began)

    def _replace(
        self, wanted: Registration, provider: Provider, checked: _Checked, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        step = ResourceStep(StepKind.REPLACE, wanted.urn, changes, decision.replaces)
        with self._lock:
            self._replaced.add(wanted.urn)
        # The old copy of a renamed resource keeps its earlier name, which its provider may need to delete it.
        earlier = replace(old, urn=self._matched.get(old.urn, old.urn))
        if decision.delete_first:
            self._delete_first(old, earlier.urn)
        # The new copy gets new auto-names, because the old one keeps its names until it is deleted. As in Pulumi,
        # it gets the program's values of ignored properties.
        checked = self._check(wanted, provider, None)
        return self._create(step, wanted, provider, checked, None if decision.delete_first else earlier)

    def _delete_first(self, old: ResourceState, earlier: str) -> None:
        """Delete a resource before its replacement is created, after the dependents that are replaced with it.

        Args:
            earlier: the URN before this run.
        """
        resources = dict(self.journal.contents.resources)
        going = [
            known
            for known in dependents_to_replace(old.urn, resources, self._must_follow)
            if known.urn not in self._seen
        ]
        cascade = {known.urn for known in going}
        going = [
            *(
                known
                for known in reversed(in_creation_order(resources))
                if known.urn not in cascade
                and known.urn not in self._seen
                and (known.deleted_with == old.urn or old.urn in known.replace_with)
            ),
            *going,
        ]
        for known in going:
            refuse_deletion(known)
        self._deletion.deleted.update(known.urn for known in (*going, old))
        for known in going:
            with self._alone(known.urn):
                if known.urn not in self._seen:
                    self._deletion.remove(known, replaced=True)
                    self._deleted_first.add(known.urn)
        self._deletion.remove(old, replaced=True, earlier=earlier)

    def _must_follow(self, known: ResourceState, affected: frozenset[str]) -> bool:
        """Return True if a change of these inputs would replace a resource. Found by a diff without them."""
        without = {key: value for key, value in known.inputs.values.items() if key not in affected}
        call = ResourceCall.about(known, old_inputs=known.inputs.values, inputs=without)
        diff = self._providers.serving(known.type).diff(call)
        return bool(with_forced(diff, known.replace_on_changes).replace)

    def _plan(self, step: ResourceStep, draft: ResourceState, old: ResourceState | None = None) -> Outcome:
        """Answer a registration in a plan: the known outputs, and the id if it stays."""
        self.journal.created(draft, old)
        return self._done(step, draft, time.monotonic())

    def _done(self, step: ResourceStep, done: ResourceState, began: float) -> Outcome:
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
            call = ResourceCall(wanted.type, wanted.inputs.values, wanted.urn, identity)
            live = self._providers.serving(wanted.type).read(call)
            if live is None:
                raise _missing(wanted.type, identity)
            names = wanted.options.additional_secret_outputs
            outputs = Properties(live, secret_outputs(wanted.inputs, live, names))
        new = replace(self._described(wanted, wanted.inputs, identity, outputs), external=True)
        old = self.journal.known(wanted.urn)
        if old is not None and not old.external and old.id != identity:
            # The stack managed another resource under this name. It is deleted as a replaced copy.
            refuse_deletion(old)
            with self._lock:
                self._replaced.add(wanted.urn)
            self.journal.created(new, old)
        elif new != old:
            self.journal.put(new)
        self._report.ended(ResourceStep(StepKind.READ, wanted.urn))
        return Outcome(identity, outputs)

    def finish(self) -> None:
        """Delete resources that the program no longer has, and replaced copies. After a failure nothing is deleted."""
        if self._report.failures or self._stopped.is_set():
            return
        if self.applying:
            self._end_leftovers()
        contents = self.journal.contents
        gone = [known for known in contents.resources.values() if known.urn not in self._seen]
        self._deletion.delete_all([*gone, *contents.doomed.values()])


def _missing(type_: str, identity: str) -> MlopsError:
    return MlopsError(f"no {type_} with the id `{identity}`", fix="correct the id, or create that resource first.")


def _claimed_twice(urn: str, alias: str, other: str) -> MlopsError:
    return MlopsError(
        f"{urn} and {other} are both said to be {alias} of the state",
        fix="remove the alias from one of them.",
    )


def _completed(draft: ResourceState, created: Created) -> ResourceState:
    """Return a resource with the provider's result."""
    if not created.id:
        raise TypeError(f"the provider returned an empty id for {draft.urn}")
    secrets = secret_outputs(draft.inputs, created.outputs, draft.secret_names)
    return replace(draft, id=created.id, outputs=Properties(created.outputs, secrets), recorded=created.recorded)


def _expected_outputs(old: ResourceState, inputs: Properties, decision: Decision) -> Properties:
    """Predict the outputs of an update: the old ones, with the inputs that change."""
    changed = {str(parse_path(text)[0]) for text in decision.changed}
    values = {key: value for key, value in old.outputs.values.items() if key not in changed}
    values |= {key: value for key, value in inputs.values.items() if key in changed}
    return Properties(values, still_secret(old.outputs.secrets | inputs.secrets, values))


def _of_other_stack(name: str, found: Properties) -> Properties:
    """Return the outputs of a stack reference in the SDK's format."""
    secret_names = sorted({str(path[0]) for path in found.secrets})
    return Properties(
        {"name": name, "outputs": found.values, "secretOutputNames": secret_names},
        frozenset(("outputs", *path) for path in found.secrets),
    )
