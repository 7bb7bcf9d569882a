"""CODEOWNERS, by the examples of GitHub's documentation."""

from __future__ import annotations

import pytest

from laptop.github.codeowners import owners_of, read_rules, unapproved

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
def test_the_last_line_that_matches_names_the_owners(path: str, owners: tuple[str, ...]) -> None:
    assert owners_of(read_rules(EXAMPLE), path) == owners


def test_one_owner_of_each_file_must_approve_and_a_team_is_its_members() -> None:
    rules = read_rules("* @Maria\nprod.yaml @acme/approvers\nfree\n")
    files = ("a.py", "prod.yaml", "free")
    teams = {"acme/Approvers": ("Noah", "olga")}
    assert unapproved(rules, files, ("maria",), teams) == {"prod.yaml": ("acme/approvers",)}
    assert unapproved(rules, files, ("noah",), teams) == {"a.py": ("maria",)}
    assert unapproved(rules, files, ("maria", "NOAH"), teams) == {}
