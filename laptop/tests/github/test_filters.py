"""The patterns of branches and paths: the rows of GitHub's cheat sheet."""

from __future__ import annotations

import pytest

from laptop.github.filters import Patterns, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("feature/*", ("feature/my-branch", "feature/your-branch"), ("feature/a/b", "feature")),
        ("feature/**", ("feature/beta-a/my-branch", "feature/mona/the/octocat"), ("features/x",)),
        ("main", ("main",), ("Main", "main2", "x/main")),
        ("*", ("main", "releases"), ("all/the/branches",)),
        ("**", ("all/the/branches", "main"), ()),
        ("*feature", ("mona-feature", "feature"), ("mona/feature",)),
        ("v2*", ("v2", "v2.0"), ("v1",)),
        ("v[12].[0-9]+.[0-9]+", ("v1.10.1", "v2.0.0"), ("v3.1.0", "v1.1")),
        ("*.jsx?", ("page.js", "page.jsx"), ("page.jsxx", "a/page.js")),
        ("**.js", ("index.js", "js/index.js", "src/js/app.js"), ("index.jsx",)),
        ("docs/*", ("docs/README.md", "docs/file.txt"), ("docs/a/b.md",)),
        ("docs/**", ("docs/README.md", "docs/mona/octocat.txt"), ("doc/x",)),
        ("docs/**/*.md", ("docs/README.md", "docs/mona/hello-world.md", "docs/a/b/c.md"), ("docs.md", "docs/x.txt")),
        ("**/docs/**", ("docs/hello.md", "dir/docs/my-file.txt", "space/docs/plan/space.doc"), ("mydocs/x",)),
        ("**/README.md", ("README.md", "js/README.md"), ("XREADME.md",)),
        ("**/*src/**", ("a/src/app.js", "my-src/code/js/app.js"), ("srcs/x",)),
        ("**/*-post.md", ("my-post.md", "path/their-post.md"), ("post.md",)),
        ("**/migrate-*.sql", ("migrate-10909.sql", "db/sept/migrate-v1.sql"), ("migrate.sql",)),
        ("a\\*b", ("a*b",), ("axb",)),
        ("models/+x", ("models/x", "models//x"), ("models+x",)),
    ],
)
def test_a_pattern_takes_what_the_cheat_sheet_says(pattern: str, taken: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert [name for name in taken if not compile_pattern(pattern).fullmatch(name)] == []
    assert [name for name in left if compile_pattern(pattern).fullmatch(name)] == []


def test_a_later_pattern_overrules_an_earlier_one() -> None:
    patterns = Patterns(("*.md", "!README.md", "docs/*", "!docs/old.md", "README*"))
    assert [n for n in ("hello.md", "README.md", "docs/a.md", "docs/old.md", "x.py") if patterns.accept(n)] == [
        "hello.md",
        "README.md",
        "docs/a.md",
    ]


def test_ignored_patterns_take_everything_else() -> None:
    ignored = Patterns(("docs/**",), ignore=True)
    assert ignored.accept_any(("docs/a.md", "src/x.py"))
    assert not ignored.accept_any(("docs/a.md", "docs/b.md"))


@pytest.mark.parametrize("pattern", ["[abc", "+x", "?", "[!a]x"])
def test_what_is_not_a_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"brackets|before"):
        compile_pattern(pattern)
