"""One run over a stack: each registration is decided and carried out when it arrives, deletions come last.

The same code plans and applies. A plan works on a ledger in memory and asks providers to check and compare only;
what it cannot know yet is `UNKNOWN`.
"""

from __future__ import annotations

import copy
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from infra.local.engine.paths import changed_paths, keep_ignored, parse_path, write_path
from infra.local.engine.plan import (
    Decision,
    Registration,
    decide,
    deletion_waits,
    dependents_to_replace,
    in_creation_order,
    refuse_deletion,
    without_unknowns,
)
from infra.local.engine.policy import PlannedResource
from infra.local.engine.provider import PROVIDER_TYPE_PREFIX, Created, Diff, Provider, Providers
from infra.local.engine.state import Contents, Ledger, Pending, ResourceState, known_only
from infra.local.engine.steps import Kind, Step, describe_changes
from infra.local.engine.urns import STACK_TYPE, older_urns
from infra.local.engine.values import Properties, has_unknown, is_at, secret_outputs, still_secret
from pipelines.declarations.errors import MlopsError

T = TypeVar("T")
NOTHING = Properties({})


class Progress(Protocol):
    """Who is told of a run while it goes on. Calls come from several threads."""

    def began(self, step: Step) -> None:
        """A step that takes time has begun."""

    def ended(self, step: Step) -> None:
        """A step has ended, well or not."""

    def noticed(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True)
class Outcome:
    """What the program gets back for a registration; an empty id is one not known yet."""

    id: str = ""
    outputs: Properties = NOTHING
    failed: bool = False


@dataclass(frozen=True)
class _Wanted:
    """Checked inputs of a registration.

    Attributes:
        unknown: the top-level inputs that are not known yet.
    """

    inputs: Properties
    unknown: tuple[str, ...] = ()


@dataclass
class _Steps:
    """What was done so far, in the order in which it ended."""

    done: list[Step] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Execution:
    """Carries out one run.

    Args:
        ledger: the state of the stack; its contents are changed.
        providers: who applies which resource type.
        applying: False plans only.
        progress: who is told.
        parallel: the most deletions at once.
        stack_reference: gives the outputs of another stack by its full name; raises MlopsError when unknown.
    """

    def __init__(
        self,
        ledger: Ledger,
        providers: Providers,
        *,
        applying: bool,
        progress: Progress,
        parallel: int,
        stack_reference: Callable[[str], Properties],
    ) -> None:
        self.ledger = ledger
        self.providers = providers
        self.applying = applying
        self.stack_outputs = NOTHING
        self._progress = progress
        self._parallel = parallel
        self._stack_reference = stack_reference
        self._steps = _Steps()
        self._planned: dict[str, PlannedResource] = {}
        self._seen: set[str] = set()
        self._failed: set[str] = set()
        self._replaced: set[str] = set()
        self._deleted_first: set[str] = set()
        self._older: dict[str, tuple[str, ...]] = {}
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()

    @property
    def steps(self) -> tuple[Step, ...]:
        with self._steps.lock:
            return tuple(self._steps.done)

    @property
    def failures(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.error)

    @property
    def planned(self) -> tuple[PlannedResource, ...]:
        """Every resource registered so far, for the policies."""
        with self._lock:
            return tuple(self._planned.values())

    def stop(self) -> None:
        """Begins nothing new from here on; what is under way ends."""
        self._stopped.set()

    # --- registrations -----------------------------------------------------------------------------------

    def register(self, wanted: Registration) -> Outcome:
        """Decides and carries out one registration. Failures end in `failures`, never in an exception."""
        began = time.monotonic()
        try:
            with self._alone(wanted.urn):
                self._begin(wanted)
                blockers = sorted(wanted.needs() & self._failed)
                if blockers:
                    self._failed.add(wanted.urn)
                    self._note(Step(Kind.SKIPPED, wanted.urn))
                    return Outcome(failed=True)
                return self._carry_out(wanted)
        except Exception as error:
            self._failed.add(wanted.urn)
            self._fail(wanted.urn, error, began)
            return Outcome(failed=True)

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
            contents = self.ledger.contents
            if wanted.urn in contents.resources:
                return
            known = next((urn for urn in older if urn in contents.resources and urn not in self._seen), None)
        if known is not None:
            self.ledger.change(lambda contents: contents.rename(known, wanted.urn))

    def _alone(self, urn: str) -> AbstractContextManager[Any]:
        """Never two steps at once on one resource."""
        with self._lock:
            return self._busy.setdefault(urn, threading.Lock())

    def _known(self, urn: str) -> ResourceState | None:
        known: ResourceState | None = self.ledger.look(lambda contents: contents.resources.get(urn))
        return known

    def _carry_out(self, wanted: Registration) -> Outcome:
        old = self._known(wanted.urn)
        if not wanted.custom or wanted.type.startswith(PROVIDER_TYPE_PREFIX):
            return self._keep(wanted, old)
        provider = self.providers.serving(wanted.type)
        old, names_of, resuming = self._take_up(wanted.urn, old, provider)
        checked = self._check(wanted, provider, old, names_of.inputs.values if names_of else None)
        diff = self._compare(wanted, provider, old, checked)
        unfinished = ("update", wanted.urn, "") in self.ledger.look(lambda contents: contents.pending)
        decision = decide(old, wanted.options, diff, replaced=frozenset(self._replaced), unfinished_update=unfinished)
        with self._lock:
            self._planned[wanted.urn] = replace(self._planned[wanted.urn], inputs=checked.inputs.values)
        if decision.kind is Kind.IMPORT:
            return self._import(wanted, provider, checked)
        if decision.kind is Kind.CREATE:
            return self._create(wanted, provider, checked, None, decision, resuming=resuming)
        assert old is not None
        if decision.kind is Kind.SAME:
            return self._leave(wanted, old, checked)
        if decision.kind is Kind.UPDATE:
            return self._update(wanted, provider, checked, old, decision)
        return self._replace(wanted, provider, checked, old, decision)

    def _keep(self, wanted: Registration, old: ResourceState | None) -> Outcome:
        """Components and explicit providers: kept in the state, nothing at the target."""
        identity = ""
        if wanted.custom:
            self.providers.serving(wanted.type)
            identity = old.id if old is not None and old.id else str(uuid.uuid5(uuid.NAMESPACE_URL, wanted.urn))
        inputs = known_only(wanted.inputs)
        outputs = old.outputs if old is not None and not wanted.custom else inputs
        new = self._described(wanted, inputs, id_=identity, outputs=outputs)
        if new != old:
            self._store(new)
        kind = Kind.CREATE if old is None else Kind.SAME
        if old is not None and wanted.custom and old.inputs != inputs:
            kind = Kind.UPDATE
        self._note(Step(kind, wanted.urn))
        return Outcome(identity, wanted.inputs)

    def _take_up(
        self, urn: str, old: ResourceState | None, provider: Provider
    ) -> tuple[ResourceState | None, ResourceState | None, bool]:
        """Ends what an earlier run began on this resource and did not end.

        Returns:
            The resource as it is now, the state whose auto-names are to be used again, and whether a create
            may already have happened.
        """
        pending: dict[Any, Pending] = self.ledger.look(lambda contents: dict(contents.pending))
        begun = pending.get(("create", urn, ""))
        if old is not None and ("delete", urn, old.id) in pending:
            if self.applying:
                self._delete(old, Kind.DELETE)
            old = None
        if begun is None:
            return old, None, False
        if not self.applying:
            return old, begun.resource, False
        try:
            return self._finish_create(begun.resource, provider, old), None, False
        except MlopsError as error:
            self._progress.noticed(f"{urn}: an earlier run was stopped while it created this: {error}")
            return old, begun.resource, True

    def _finish_create(self, begun: ResourceState, provider: Provider, old: ResourceState | None) -> ResourceState:
        values = copy.deepcopy(begun.inputs.values)
        created = provider.create(begun.urn, begun.type, values, resuming=True)
        self._progress.noticed(f"{begun.urn}: took up the creation that an earlier run did not finish")
        return self._created(begun, created, old)

    def _check(
        self,
        wanted: Registration,
        provider: Provider,
        old: ResourceState | None,
        names_of: dict[str, Any] | None,
    ) -> _Wanted:
        """Inputs as the provider completes them; what is not known yet is left as it is."""
        values, secrets = wanted.inputs.values, wanted.inputs.secrets
        if old is not None and not old.external and wanted.options.ignore_changes:
            values = keep_ignored(values, old.inputs.values, wanted.options.ignore_changes)
            secrets |= old.inputs.secrets
        unknown = tuple(key for key, value in values.items() if has_unknown(value))
        before = old.inputs.values if old is not None and not old.external else names_of
        if unknown and before is None:
            # Without an older version there is nothing sound to put in the place of what is not known.
            return _Wanted(Properties(values, still_secret(secrets, values)), unknown)
        known = without_unknowns(values, unknown, before or {})
        checked = provider.check(wanted.type, wanted.name, copy.deepcopy(known), copy.deepcopy(before))
        checked = {**checked, **{key: values[key] for key in unknown}}
        return _Wanted(Properties(checked, still_secret(secrets, checked)), unknown)

    def _compare(
        self, wanted: Registration, provider: Provider, old: ResourceState | None, checked: _Wanted
    ) -> Diff | None:
        if old is None or old.external:
            return None
        known = {key: value for key, value in checked.inputs.values.items() if key not in checked.unknown}
        diff = provider.diff(
            wanted.type,
            copy.deepcopy(old.inputs.values),
            copy.deepcopy(known),
            copy.deepcopy(old.outputs.values),
        )
        if not checked.unknown:
            return diff
        changed = tuple(dict.fromkeys([*diff.changed, *(write_path((key,)) for key in checked.unknown)]))
        return replace(diff, changed=changed)

    def _described(
        self,
        wanted: Registration,
        inputs: Properties,
        *,
        id_: str = "",
        outputs: Properties = NOTHING,
        recorded: str = "",
    ) -> ResourceState:
        options = wanted.options
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
            protect=options.protect,
            retain_on_delete=options.retain_on_delete,
            deleted_with=options.deleted_with,
            recorded=recorded,
            secret_names=options.additional_secret_outputs,
        )

    def _leave(self, wanted: Registration, old: ResourceState, checked: _Wanted) -> Outcome:
        secrets = old.outputs.secrets | secret_outputs(
            checked.inputs, old.outputs.values, wanted.options.additional_secret_outputs
        )
        new = self._described(
            wanted,
            checked.inputs,
            id_=old.id,
            outputs=Properties(old.outputs.values, secrets),
            recorded=old.recorded,
        )
        if new != old:
            self._store(new)
        self._note(Step(Kind.SAME, wanted.urn, recorded=old.recorded))
        return Outcome(new.id, new.outputs)

    def _store(self, new: ResourceState) -> None:
        def mutate(contents: Contents) -> None:
            contents.resources[new.urn] = new

        self.ledger.change(mutate)

    # --- create, update, replace, import -----------------------------------------------------------------

    def _create(
        self,
        wanted: Registration,
        provider: Provider,
        checked: _Wanted,
        old: ResourceState | None,
        decision: Decision,
        *,
        resuming: bool = False,
        changes: tuple[Any, ...] = (),
    ) -> Outcome:
        replacing = decision.kind is Kind.REPLACE or wanted.urn in self._deleted_first
        step = Step(Kind.REPLACE if replacing else Kind.CREATE, wanted.urn, changes=changes, replaces=decision.replaces)
        draft = self._described(wanted, checked.inputs)
        if not self.applying:
            if old is not None:
                self.ledger.change(lambda contents: contents.doomed.update({(old.urn, old.id): old}))
            return self._plan(step, draft)

        def act() -> tuple[ResourceState, str]:
            values = copy.deepcopy(checked.inputs.values)
            created = self._ask(
                Pending("create", draft),
                lambda: provider.create(wanted.urn, wanted.type, values, resuming=resuming),
            )
            done = self._created(draft, created, old)
            return done, created.recorded

        done = self._timed(step, act)
        return Outcome(done.id, done.outputs)

    def _created(self, draft: ResourceState, created: Created, old: ResourceState | None) -> ResourceState:
        """Notes that a resource was created; the copy it replaces is to be deleted at the end."""
        done = self._completed(draft, created)

        def mutate(contents: Contents) -> None:
            contents.pending.pop(("create", draft.urn, ""), None)
            contents.pending.pop(("update", draft.urn, ""), None)
            contents.resources[draft.urn] = done
            # The same id is the same thing: it was taken over, and must not be deleted under the new one.
            if old is not None and not old.external and old.id != done.id:
                contents.doomed[(old.urn, old.id)] = old

        self.ledger.change(mutate)
        return done

    def _completed(self, draft: ResourceState, created: Created) -> ResourceState:
        if not created.id:
            raise TypeError(f"the provider returned an empty id for {draft.urn}")
        secrets = secret_outputs(draft.inputs, created.outputs, draft.secret_names)
        outputs = Properties(created.outputs, secrets)
        return replace(draft, id=created.id, outputs=outputs, recorded=created.recorded)

    def _update(
        self, wanted: Registration, provider: Provider, checked: _Wanted, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        if old.recorded:
            # Nothing stands at the target, so there is nothing to update.
            return self._create(wanted, provider, checked, None, Decision(Kind.UPDATE), changes=changes)
        step = Step(Kind.UPDATE, wanted.urn, changes=changes)
        draft = self._described(wanted, checked.inputs, id_=old.id, outputs=old.outputs)
        if not self.applying:
            changed = {str(parse_path(text)[0]) for text in decision.changed}
            values = {key: value for key, value in old.outputs.values.items() if key not in changed}
            values |= {key: value for key, value in checked.inputs.values.items() if key in changed}
            secrets = old.outputs.secrets | checked.inputs.secrets
            return self._plan(step, replace(draft, outputs=Properties(values, still_secret(secrets, values))))

        def act() -> tuple[ResourceState, str]:
            before, after, outputs = copy.deepcopy((old.inputs.values, checked.inputs.values, old.outputs.values))
            pending = Pending("update", draft)
            # A failed update may have changed something: the note stays, so that the next run repeats it.
            created = self._ask(
                pending,
                lambda: provider.update(wanted.urn, wanted.type, old.id, before, after, outputs),
                keep=True,
            )
            done = self._completed(draft, created)

            def mutate(contents: Contents) -> None:
                contents.pending.pop(pending.key, None)
                contents.resources[wanted.urn] = done

            self.ledger.change(mutate)
            return done, created.recorded

        done = self._timed(step, act)
        return Outcome(done.id, done.outputs)

    def _replace(
        self, wanted: Registration, provider: Provider, checked: _Wanted, old: ResourceState, decision: Decision
    ) -> Outcome:
        changes = describe_changes(old.inputs, checked.inputs, decision.changed)
        kept: ResourceState | None = old
        if decision.delete_first:
            self._delete_first(old)
            kept = None
        with self._lock:
            self._replaced.add(wanted.urn)
        # The new copy gets names of its own, as the old one still has its names while the new one is made.
        values = keep_ignored(wanted.inputs.values, old.inputs.values, wanted.options.ignore_changes)
        anew = replace(wanted, inputs=Properties(values, wanted.inputs.secrets | old.inputs.secrets))
        checked = self._check(anew, provider, None, None)
        return self._create(wanted, provider, checked, kept, decision, changes=changes)

    def _delete_first(self, old: ResourceState) -> None:
        """Deletes a resource before its replacement comes, and before it those that must go with it."""
        resources: dict[str, ResourceState] = self.ledger.look(lambda contents: dict(contents.resources))
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
                    self._remove(known, Kind.DELETE_REPLACED)
                    with self._lock:
                        self._deleted_first.add(known.urn)
        self._remove(old, Kind.DELETE_REPLACED)

    def _must_follow(self, known: ResourceState, affected: frozenset[str]) -> bool:
        """Whether a change of these inputs would replace a resource; asked by leaving them out."""
        without = {key: value for key, value in known.inputs.values.items() if key not in affected}
        diff = self.providers.serving(known.type).diff(
            known.type, copy.deepcopy(known.inputs.values), without, copy.deepcopy(known.outputs.values)
        )
        return bool(diff.replace)

    def _import(self, wanted: Registration, provider: Provider, checked: _Wanted) -> Outcome:
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
        draft = self._described(wanted, checked.inputs)
        done = self._completed(draft, Created(identity, live))
        self._store(done)
        self._note(Step(Kind.IMPORT, wanted.urn))
        return Outcome(done.id, done.outputs)

    def _plan(self, step: Step, draft: ResourceState) -> Outcome:
        """What a preview gives the program: the inputs, and an id that is not known unless it stays."""
        outputs = draft.outputs if draft.id else draft.inputs
        self._store(replace(draft, outputs=outputs))
        if step.kind is Kind.REPLACE:
            with self._lock:
                self._replaced.add(step.urn)
        self._note(step)
        return Outcome(draft.id, outputs)

    def _ask(self, pending: Pending, action: Callable[[], T], *, keep: bool = False) -> T:
        """Calls a provider with the step noted as pending, so that a crash from here on is known of."""

        def note(contents: Contents) -> None:
            contents.pending[pending.key] = pending

        self.ledger.change(note)
        try:
            return action()
        except MlopsError:
            if not keep:
                self._forget_pending(pending)
            raise

    def _forget_pending(self, pending: Pending) -> None:
        def mutate(contents: Contents) -> None:
            contents.pending.pop(pending.key, None)

        self.ledger.change(mutate)

    def _timed(self, step: Step, act: Callable[[], tuple[ResourceState, str]]) -> ResourceState:
        self._progress.began(step)
        began = time.monotonic()
        done, recorded = act()
        self._note(replace(step, recorded=recorded, seconds=time.monotonic() - began))
        return done

    # --- reads and outputs -------------------------------------------------------------------------------

    def read(self, wanted: Registration, identity: str) -> Outcome:
        """Reads a resource that the stack does not manage (`Resource.get`, a stack reference)."""
        began = time.monotonic()
        try:
            with self._alone(wanted.urn):
                self._begin(wanted)
                if wanted.needs() & self._failed:
                    self._failed.add(wanted.urn)
                    return Outcome(failed=True)
                return self._read(wanted, identity)
        except Exception as error:
            self._failed.add(wanted.urn)
            self._fail(wanted.urn, error, began)
            return Outcome(failed=True)

    def _read(self, wanted: Registration, identity: str) -> Outcome:
        if wanted.type == "pulumi:pulumi:StackReference":
            found = self._stack_reference(identity)
            names: list[Any] = sorted({str(path[0]) for path in found.secrets})
            outputs = Properties(
                {"name": identity, "outputs": found.values, "secretOutputNames": names},
                frozenset(("outputs", *path) for path in found.secrets),
            )
        else:
            live = self.providers.serving(wanted.type).read(wanted.type, identity, wanted.inputs.values, {})
            if live is None:
                raise MlopsError(
                    f"there is no {wanted.type} with the id `{identity}`",
                    fix="correct the id, or create that resource first.",
                )
            secrets = secret_outputs(wanted.inputs, live, wanted.options.additional_secret_outputs)
            outputs = Properties(live, secrets)
        new = replace(self._described(wanted, wanted.inputs, id_=identity, outputs=outputs), external=True)
        if new != self._known(wanted.urn):
            self._store(new)
        self._note(Step(Kind.READ, wanted.urn))
        return Outcome(identity, outputs)

    def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Keeps the outputs of a component or of the stack; what failed to become known stays as it was."""
        known = self._known(urn)
        if known is None:
            return
        kept = known_only(outputs)
        if known.type == STACK_TYPE:
            self.stack_outputs = outputs
            lost = [key for key in outputs.values if key not in kept.values and key in known.outputs.values]
            values = {**kept.values, **{key: known.outputs.values[key] for key in lost}}
            kept = Properties(values, still_secret(kept.secrets | known.outputs.secrets, values))
            kept = Properties(
                values,
                frozenset(
                    path
                    for path in kept.secrets
                    if path in outputs.secrets or (path[0] in lost and is_at(values, path))
                ),
            )
        if known.outputs != kept:
            self._store(replace(known, outputs=kept))

    # --- deletions ---------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Deletes what the program no longer has and what was replaced. After a failure nothing is deleted."""
        if self.failures or self._stopped.is_set():
            return
        self._end_leftovers()
        contents = self.ledger.contents
        going = [known for known in contents.resources.values() if known.urn not in self._seen]
        self.delete_all([*going, *contents.doomed.values()])

    def delete_all(self, going: list[ResourceState]) -> None:
        """Deletes resources, each before what it needs, independent ones at once; none if one is protected."""
        refused = False
        for known in going:
            if not self._is_doomed(known):
                try:
                    refuse_deletion(known)
                except MlopsError as error:
                    self._fail(known.urn, error, time.monotonic(), Kind.DELETE)
                    refused = True
        if refused:
            return
        urns = {known.urn for known in going if not self._is_doomed(known)}
        if not self.applying:
            ordered = in_creation_order({known.urn: known for known in going})[::-1]
            rest = [known for known in going if all(known is not other for other in ordered)]
            for known in [*rest, *ordered]:
                self._remove(known, self._kind_of_deletion(known), gone_with=urns)
            return
        self._delete_in_order(going, urns)

    def _delete_in_order(self, going: list[ResourceState], urns: set[str]) -> None:
        by_key = {(known.urn, known.id): known for known in going}
        waits = deletion_waits(going)
        gone: set[tuple[str, str]] = set()
        running: dict[Future[bool], tuple[str, str]] = {}
        failed = False
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="delete") as pool:
            while by_key or running:
                ready = [key for key in by_key if waits[key] <= gone]
                if not ready and not running:
                    if failed:
                        break  # what is left waits for something that could not be deleted
                    ready = list(by_key)[:1]  # a circle, which only a damaged state has
                for key in ready:
                    running[pool.submit(self._delete_one, by_key.pop(key), urns)] = key
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    key = running.pop(future)
                    if future.result():
                        gone.add(key)
                    else:
                        failed = True
        for known in by_key.values():
            self._note(Step(Kind.SKIPPED, known.urn))

    def _delete_one(self, known: ResourceState, urns: set[str]) -> bool:
        began = time.monotonic()
        try:
            if self._stopped.is_set():
                raise MlopsError("stopped before its turn came", fix="run it again to go on.")
            self._remove(known, self._kind_of_deletion(known), gone_with=urns)
        except Exception as error:
            self._fail(known.urn, error, began, Kind.DELETE)
            return False
        return True

    def _end_leftovers(self) -> None:
        """Creations that an earlier run began, of resources that the program no longer has."""
        begun = [
            item.resource
            for item in self.ledger.contents.pending.values()
            if item.kind == "create" and item.resource.urn not in self._seen
        ]
        if not self.applying:
            return
        for draft in begun:
            try:
                provider = self.providers.serving(draft.type)
                self._finish_create(draft, provider, self._known(draft.urn))
            except MlopsError as error:
                self._progress.noticed(f"{draft.urn}: an earlier run was stopped while it created this: {error}")
                self._forget_pending(Pending("create", draft))

    def _is_doomed(self, known: ResourceState) -> bool:
        return self.ledger.contents.doomed.get((known.urn, known.id)) is known

    def _kind_of_deletion(self, known: ResourceState) -> Kind:
        return Kind.DELETE_REPLACED if self._is_doomed(known) else Kind.DELETE

    def _remove(self, known: ResourceState, kind: Kind, gone_with: Iterable[str] = ()) -> None:
        """One deletion, shown; what is retained or was only read is forgotten."""
        if known.external:
            self._drop(known)
            return
        silent = not known.custom or known.type.startswith(PROVIDER_TYPE_PREFIX)
        step = Step(Kind.FORGET if known.retain_on_delete and not silent else kind, known.urn)
        step = replace(step, recorded=known.recorded)
        if self.applying and not silent:
            self._progress.began(step)
        began = time.monotonic()
        if self.applying and not silent and known.deleted_with not in gone_with:
            self._delete(known, kind)
        else:
            self._drop(known)
        self._note(replace(step, seconds=time.monotonic() - began))

    def _delete(self, known: ResourceState, kind: Kind) -> None:
        """Deletes at the target, and then from the state."""
        if not (known.retain_on_delete or known.recorded):
            provider = self.providers.serving(known.type)
            inputs, outputs = copy.deepcopy((known.inputs.values, known.outputs.values))
            self._ask(
                Pending("delete", known),
                lambda: provider.delete(known.urn, known.type, known.id, inputs, outputs),
            )
        self._drop(known)

    def _drop(self, known: ResourceState) -> None:
        def mutate(contents: Contents) -> None:
            for key in [Pending("delete", known).key, ("update", known.urn, "")]:
                contents.pending.pop(key, None)
            if contents.doomed.get((known.urn, known.id)) is known:
                del contents.doomed[(known.urn, known.id)]
            elif contents.resources.get(known.urn) is known:
                del contents.resources[known.urn]

        self.ledger.change(mutate)

    # --- refresh -----------------------------------------------------------------------------------------

    def refresh_all(self) -> None:
        """Brings the state up to what is at the target; the target is only read."""
        resources = list(self.ledger.contents.resources.values())
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="refresh") as pool:
            list(pool.map(self._refresh_one, resources))

    def _refresh_one(self, known: ResourceState) -> None:
        silent = not known.custom or known.external or known.type.startswith(PROVIDER_TYPE_PREFIX)
        if silent or known.recorded:
            return
        began = time.monotonic()
        try:
            provider = self.providers.serving(known.type)
            inputs, outputs = copy.deepcopy((known.inputs.values, known.outputs.values))
            live = provider.read(known.type, known.id, inputs, outputs)
        except Exception as error:
            self._fail(known.urn, error, began, Kind.READ)
            return
        if live is None:
            self._drop(known)
            self._note(Step(Kind.GONE, known.urn, seconds=time.monotonic() - began))
            return
        drifted = sorted({str(path[0]) for path in changed_paths(known.outputs.values, live)})
        if not drifted:
            self._note(Step(Kind.SAME, known.urn))
            return
        # An input that differs from what the last step left is what the next `up` has to put right.
        values = dict(known.inputs.values)
        for key in set(drifted) & values.keys():
            if key in live:
                values[key] = live[key]
            else:
                del values[key]
        secrets = still_secret(known.outputs.secrets, live)
        found = replace(
            known,
            inputs=Properties(values, still_secret(known.inputs.secrets, values)),
            outputs=Properties(live, secrets),
        )
        self._store(found)
        changes = describe_changes(known.outputs, found.outputs, drifted)
        self._note(Step(Kind.DRIFTED, known.urn, changes=changes))

    # --- what people see ---------------------------------------------------------------------------------

    def _note(self, step: Step) -> None:
        with self._steps.lock:
            self._steps.done.append(step)
        self._progress.ended(step)

    def _fail(self, urn: str, error: Exception, began: float, kind: Kind | None = None) -> None:
        if kind is None:
            kind = Kind.CREATE if self._known(urn) is None else Kind.UPDATE
        self._note(Step(kind, urn, error=reason_of(error), seconds=time.monotonic() - began))


def reason_of(error: Exception) -> str:
    """What went wrong, for people; a defect is shown with the place of the code that has it."""
    if isinstance(error, MlopsError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
