"""Deletes resources: one, or many in the order that their dependencies ask for."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from laptop.engine.ledger import Ledger
from laptop.engine.plan import deletion_waits, in_creation_order, refuse_deletion
from laptop.engine.provider import Providers, is_provider
from laptop.engine.report import Report
from laptop.engine.resources import Pending, ResourceState
from laptop.engine.steps import Kind, Step
from pipelines.declarations.errors import MlopsError

_Key = tuple[str, str]


class Deletion:
    """Deletes from the target and from the state.

    Args:
        ledger: the state of the stack.
        providers: who deletes which type.
        report: where the steps are noted.
        applying: False only plans: nothing but the ledger, which is then one in memory, is changed.
        parallel: the most deletions at once.
        stopped: set when nothing new is to be begun.
    """

    def __init__(
        self,
        ledger: Ledger,
        providers: Providers,
        report: Report,
        *,
        applying: bool,
        parallel: int,
        stopped: threading.Event,
    ) -> None:
        self._ledger = ledger
        self._providers = providers
        self._report = report
        self._applying = applying
        self._parallel = parallel
        self._stopped = stopped

    def delete_all(self, going: list[ResourceState]) -> None:
        """Deletes resources, each after all that need it, independent ones at once; none if one is protected."""
        if self._refused(going):
            return
        urns = frozenset(known.urn for known in going if not self._ledger.is_doomed(known))
        if self._applying:
            self._delete_in_order(going, urns)
            return
        copies = [known for known in going if self._ledger.is_doomed(known)]
        live = in_creation_order({known.urn: known for known in going if not self._ledger.is_doomed(known)})
        for known in [*copies, *reversed(live)]:
            self.remove(known, urns)

    def _refused(self, going: list[ResourceState]) -> bool:
        refused = False
        for known in going:
            # A replaced copy was let go when its replacement was decided.
            if not self._ledger.is_doomed(known):
                try:
                    refuse_deletion(known)
                except MlopsError as error:
                    self._report.failed(Kind.DELETE, known.urn, error, time.monotonic())
                    refused = True
        return refused

    def _delete_in_order(self, going: list[ResourceState], urns: frozenset[str]) -> None:
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
                        break  # what is left waits for something that could not be deleted
                    ready = list(left)[:1]  # a circle, which only a damaged state has
                for key in ready:
                    running[pool.submit(self._delete_one, left.pop(key), urns)] = key
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    key = running.pop(future)
                    if future.result():
                        gone.add(key)
                    else:
                        failed = True
        for known in left.values():
            self._report.ended(Step(Kind.SKIPPED, known.urn))

    def _delete_one(self, known: ResourceState, urns: frozenset[str]) -> bool:
        began = time.monotonic()
        try:
            if self._stopped.is_set():
                raise MlopsError("stopped before its turn came", fix="run it again to go on.")
            self.remove(known, urns)
        except Exception as error:
            self._report.failed(Kind.DELETE, known.urn, error, began)
            return False
        return True

    def remove(self, known: ResourceState, gone_with: Collection[str] = (), *, replaced: bool | None = None) -> None:
        """One deletion, shown. What is retained is forgotten, what was only read leaves without a word.

        Args:
            gone_with: URNs that go in the same run, for the option `deleted_with`.
            replaced: whether a new copy takes its place; None: as the state says.
        """
        if known.external:
            self._ledger.drop(known)
            return
        if replaced is None:
            replaced = self._ledger.is_doomed(known)
        at_target = known.custom and not is_provider(known.type)
        kind = Kind.DELETE_REPLACED if replaced else Kind.DELETE
        if at_target and known.retain_on_delete:
            kind = Kind.FORGET
        step = Step(kind, known.urn, recorded=known.recorded)
        began = time.monotonic()
        if self._applying and at_target and known.deleted_with not in gone_with:
            self._report.began(step)
            self.delete(known)
        else:
            self._ledger.drop(known)
        self._report.ended(replace(step, seconds=time.monotonic() - began))

    def delete(self, known: ResourceState) -> None:
        """Deletes at the target, and then from the state."""
        if not (known.retain_on_delete or known.recorded):
            provider = self._providers.serving(known.type)
            inputs, outputs = copy.deepcopy((known.inputs.values, known.outputs.values))
            self._ledger.ask(
                Pending("delete", known),
                lambda: provider.delete(known.urn, known.type, known.id, inputs, outputs),
            )
        self._ledger.drop(known)
