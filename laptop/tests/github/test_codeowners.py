"""CODEOWNERS: the examples of GitHub's documentation."""

from __future__ import annotations

import pytest

from laptop.github.forge.owners import owners_of, read_owners, unapproved_files

EXAMPLE = """
# a comment
*       @global-owner1 @global-owner2
*.js    @js-owner # inline comment
*.go docs@example.com
*.txt @octo-org/octocats
/build/logs/ @doctocat
docs/*  docs@example.com
apps/ @octocat
/docs/ @doctocat
/scripts/ @doctocat @octocat
**/logs @octocat
/apps/github
models/*/releases/prod.yaml @acme/approvers
!nothing @x
[a-z].md @x
"""


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("README", ("global-owner1", "global-owner2")),
        ("deep/a.js", ("js-owner",)),
        ("a/b.go", ("docs@example.com",)),
        ("x.txt", ("octo-org/octocats",)),
        ("build/logs/a/b.txt", ("octocat",)),
        ("deep/apps/x", ("octocat",)),
        ("docs/a/b.md", ("doctocat",)),
        ("other/docs/a.md", ("global-owner1", "global-owner2")),
        ("scripts/x", ("doctocat", "octocat")),
        ("deep/logs/x", ("octocat",)),
        ("apps/github", ()),
        ("apps/github/x", ()),
        ("models/m/releases/prod.yaml", ("acme/approvers",)),
        ("models/a/b/releases/prod.yaml", ("global-owner1", "global-owner2")),
        ("a.md", ("global-owner1", "global-owner2")),
    ],
)
def test_the_last_matching_line_names_the_owners(path: str, owners: tuple[str, ...]) -> None:
    assert owners_of(read_owners(EXAMPLE), path) == owners


@pytest.mark.parametrize(
    ("pattern", "owned", "free"),
    [
        ("/*", ("a",), ("a/b",)),
        ("docs/*", ("docs/a",), ("docs/a/b", "x/docs/a")),
        ("/m/**/p", ("m/p", "m/a/p", "m/a/b/p/c"), ("m", "x/m/p")),
        ("a\\ b/", ("a b/c", "x/a b/c"), ("a b", "a/b")),
        ("**/logs", ("logs", "a/logs/b"), ("logs.txt",)),
        ("/a/**", ("a/b", "a/b/c"), ("a", "b/a/c")),
        ("*.js", ("a.js", "a/b.js"), ("a.json",)),
        ("/docs", ("docs", "docs/a"), ("x/docs",)),
        ("Docs/", ("Docs/a",), ("docs/a",)),
    ],
)
def test_a_pattern_owns_what_it_owns_on_github(pattern: str, owned: tuple[str, ...], free: tuple[str, ...]) -> None:
    rules = read_owners(f"{pattern} @maria\n")
    assert [path for path in owned if owners_of(rules, path) != ("maria",)] == []
    assert [path for path in free if owners_of(rules, path)] == []


def test_each_file_needs_one_owner_or_a_member_of_an_owning_team() -> None:
    rules = read_owners("* @Maria\nprod.yaml @acme/approvers\nfree\n")
    files = ("a.py", "prod.yaml", "free")
    teams = {"acme/Approvers": ("Noah", "olga")}
    assert unapproved_files(rules, files, ("maria",), teams) == {"prod.yaml": ("acme/approvers",)}
    assert unapproved_files(rules, files, ("noah",), teams) == {"a.py": ("maria",)}
    assert unapproved_files(rules, files, ("maria", "NOAH"), teams) == {}
