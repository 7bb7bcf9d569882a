"""Who must approve what an environment runs: the lines of CODEOWNERS that name its releases and its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError, Problem
from pipelines.declarations.project import Project
from pipelines.github.repository_facts import CODE_OWNERS


def final_environments(project: Project) -> tuple[str, ...]:
    """Return the environments from which none promotes: what reaches them is in production."""
    sources = {project.stack(name).config.environment.promotes_from for name in project.environments}
    return tuple(name for name in project.environments if name not in sources)


def patterns_of(environment: str) -> tuple[str, str]:
    """Return the patterns that name the releases and the configuration of an environment."""
    return f"/models/*/releases/{environment}.yaml", f"/Pulumi.{environment}.yaml"


def find_unowned(text: str, environments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each line that CODEOWNERS lacks, or that a later line may override.

    Without a line of its own, a release belongs to the owners of the model, who would promote their work alone.

    Args:
        text: the content of CODEOWNERS.
        environments: the environments whose lines are looked for.
    """
    lines = _read(text)
    wanted = {pattern for name in environments for pattern in patterns_of(name)}
    for pattern in sorted(wanted):
        found = [(number, owners) for number, name, owners in lines if name == pattern]
        fix = "mlops github owners"
        if not found or not found[-1][1]:
            expected = f"a line `{pattern}` with owners"
            yield Problem(CODE_OWNERS, found[-1][0] if found else None, "", expected, "none", fix)
            continue
        later = [(number, name) for number, name, _ in lines if number > found[-1][0]]
        for number, name in later:
            if _may_fit(name, pattern):
                expected = f"no general pattern after `{pattern}`: the last line that fits a file counts"
                yield Problem(CODE_OWNERS, number, "", expected, f"`{name}`", "move this line up")


def _may_fit(pattern: str, files: str) -> bool:
    """Return whether a pattern may fit a file that fits `/models/*/releases/prod.yaml` or another one with `*` folders.

    Patterns are those of gitignore files: without a `/` in it, one fits at any depth, and it fits all files of a folder
    that it fits. That `folder/*` leaves out the folders in it on GitHub makes no difference here.
    """
    parts = pattern.strip("/").split("/")
    anywhere = "/" not in pattern.rstrip("/")
    return _fits((["**"] if anywhere else []) + parts, files.strip("/").split("/"))


def _fits(parts: Sequence[str], path: Sequence[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**":
        return _fits(parts[1:], path) or (bool(path) and _fits(parts, path[1:]))
    if not path:
        return False
    # Names of models have no dots.
    fits = "." not in parts[0] if path[0] == "*" else fnmatchcase(path[0], parts[0])
    return fits and _fits(parts[1:], path[1:])


def with_release_owners(text: str, environments: Sequence[str]) -> str:
    """Return CODEOWNERS with a line for each pattern that it lacks, with the owners of another environment's line.

    Args:
        text: the present content.
        environments: the environments that need lines.

    Raises:
        MlopsError: no line names owners that could be taken.
    """
    lines = _read(text)
    added = []
    for name in environments:
        for pattern, general in zip(patterns_of(name), (r"/models/\*/releases/.+", r"/Pulumi\..+"), strict=True):
            if any(each == pattern and owners for _, each, owners in lines):
                continue
            known = [owners for _, each, owners in lines if owners and re.fullmatch(general, each)]
            known += [owners for _, each, owners in lines if owners and each == "*"]
            if not known:
                raise MlopsError(
                    f"{CODE_OWNERS}: expected a line `*` or of an environment, whose owners {name} can have; found "
                    "none",
                    fix=f"add the line `{pattern} @owner`",
                )
            added.append(f"{pattern:<31} {known[0]}\n")
    return text if not added else f"{text.rstrip()}\n{''.join(added)}"


def check_release_owners(project: Project) -> None:
    """Check that CODEOWNERS names who approves the final environments. A repository without the file is not checked.

    Raises:
        MlopsError: it does not; every problem is listed.
    """
    file = project.root / CODE_OWNERS
    if file.is_file():
        problems = list(find_unowned(file.read_text(encoding="utf-8"), final_environments(project)))
        if problems:
            raise MlopsError("\n".join(map(str, problems)))


def write_release_owners(project: Project) -> bool:
    """Add the lines that CODEOWNERS lacks for the final environments, and return whether the file changed.

    Raises:
        MlopsError: see `with_release_owners`.
    """
    file = project.root / CODE_OWNERS
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    after = with_release_owners(before, final_environments(project)) if before else before
    if after != before:
        write_atomically(file, after)
    return after != before


def _read(text: str) -> list[tuple[int, str, str]]:
    """Return number, pattern and owners of each line."""
    rules = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, words[0], " ".join(words[1:])) for number, words in rules if words]
