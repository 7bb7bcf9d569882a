"""Deletion of resources in the order of their dependencies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from laptop.engine.decisions import deletion_waits, in_creation_order, refuse_deletion
from laptop.engine.journal import Journal
from laptop.engine.progress import RunReport
from laptop.engine.provider import Providers, ResourceCall, is_provider
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.engine.resources import Pending, ResourceState
from pipelines.declarations.errors import MlopsError

_Key = tuple[str, str]


class Deletion:
    """Deletes resources and removes them from the state.

    Args:
        journal: state of the stack.
        providers: the providers by package.
        report: collects the steps.
        applying: False only plans and changes nothing but the journal.
        parallel: maximum number of deletions at once.
        stopped: once set, no new deletion starts.
    """

    def __init__(
        self,
        journal: Journal,
        providers: Providers,
        report: RunReport,
        *,
        applying: bool,
        parallel: int,
        stopped: threading.Event,
    ) -> None:
        self._journal = journal
        self._providers = providers
        self._report = report
        self._applying = applying
        self._parallel = parallel
        self._stopped = stopped
        self.deleted: set[str] = set()
        """URNs whose deletion was decided; resources that are deleted with them need no call."""

    def delete_all(self, going: list[ResourceState]) -> None:
        """Delete resources, dependents first and independent ones in parallel. Delete none if one is protected."""
        if self._refused(going):
            return
        self.deleted.update(known.urn for known in going)
        if self._applying:
            self._delete_in_order(going)
            return
        copies = [known for known in going if self._journal.is_doomed(known)]
        live = in_creation_order({known.urn: known for known in going if not self._journal.is_doomed(known)})
        for known in [*copies, *reversed(live)]:
            self.remove(known)

    def _refused(self, going: list[ResourceState]) -> bool:
        refused = False
        for known in going:
            # Protection of a replaced copy was checked when its replacement was decided.
            if not self._journal.is_doomed(known):
                try:
                    refuse_deletion(known)
                except MlopsError as error:
                    self._report.failed(StepKind.DELETE, known.urn, error, time.monotonic())
                    refused = True
        return refused

    def _delete_in_order(self, going: list[ResourceState]) -> None:
        left = {(known.urn, known.id): known for known in going}
        waits = deletion_waits(going)
        gone: set[_Key] = set()
        running: dict[Future[bool], _Key] = {}
        failed = False
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="delete") as pool:
            while left or running:
                ready = [key for key in left if waits[key] <= gone]
                if not ready and not running:
                    if failed:
                        break  # the rest depends on failed deletions
                    ready = list(left)[:1]  # a cycle, possible only in a damaged state
                for key in ready:
                    running[pool.submit(self._delete_one, left.pop(key))] = key
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    key = running.pop(future)
                    if future.result():
                        gone.add(key)
                    else:
                        failed = True
        for known in left.values():
            self._report.ended(ResourceStep(StepKind.SKIPPED, known.urn))

    def _delete_one(self, known: ResourceState) -> bool:
        began = time.monotonic()
        self._report.hide(known.inputs, known.outputs)
        try:
            if self._stopped.is_set():
                raise MlopsError("not started: the run was stopped", fix="run the command again.")
            self.remove(known)
        except Exception as error:
            self._report.failed(StepKind.DELETE, known.urn, error, began)
            return False
        return True

    def remove(self, known: ResourceState, *, replaced: bool | None = None, earlier: str = "") -> None:
        """Delete one resource and report it. A retained resource is forgotten, an external one silently dropped.

        Args:
            replaced: a new copy takes its place; None looks it up in the state.
            earlier: the URN before this run, if it was renamed.
        """
        if known.external:
            self._journal.drop(known)
            return
        if replaced is None:
            replaced = self._journal.is_doomed(known)
        at_target = known.custom and not is_provider(known.type)
        kind = StepKind.DELETE_REPLACED if replaced else StepKind.DELETE
        if at_target and known.retain_on_delete:
            kind = StepKind.FORGET
        step = ResourceStep(kind, earlier or known.urn, recorded=known.recorded)
        began = time.monotonic()
        if self._applying and at_target:
            self._report.began(step)
            self.delete(known, earlier)
        else:
            self._journal.drop(known)
        self._report.ended(replace(step, seconds=time.monotonic() - began))

    def delete(self, known: ResourceState, earlier: str = "") -> None:
        """Delete a resource, then remove it from the state.

        Args:
            earlier: the URN before this run, if it was renamed.
        """
        if not (known.retain_on_delete or known.recorded or known.deleted_with in self.deleted):
            named = replace(known, urn=earlier or known.urn)
            provider = self._providers.serving(named.type)
            call = ResourceCall.about(named)
            self._journal.attempt(Pending("delete", known), lambda: provider.delete(call))
        self._journal.drop(known)
