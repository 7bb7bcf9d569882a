"""Facts about lineage for commands: gathered from the registry and the tables, or the saved copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cli.options import open_target
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.repository_root import find_root

if TYPE_CHECKING:
    from pipelines.lineage.facts import LineageFacts


def load_facts(target: str, *, offline: bool) -> LineageFacts:
    """Return the facts of all environments: gather and save them, or read the saved copy.

    Raises:
        MlopsError: the target cannot be asked; offline: there is no copy, or it is not valid.
    """
    from pipelines.lineage.facts import read_saved_facts, save_facts

    if offline:
        return read_saved_facts(find_root())
    from pipelines.lineage.gather_facts import gather_facts  # brings the clients of AWS

    opened = open_target(target)
    facts = gather_facts(opened.project, opened.descriptors())
    save_facts(opened.project.root, facts)
    return facts


def load_facts_if_any(target: str, *, live: bool) -> LineageFacts | None:
    """Return gathered facts if `live`, else the saved copy; None if there is no usable copy.

    Raises:
        MlopsError: the target cannot be asked.
    """
    if live:
        return load_facts(target, offline=False)
    try:
        return load_facts(target, offline=True)
    except MlopsError:
        return None
