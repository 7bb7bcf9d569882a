from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.datasets import catalog
from pipelines.data.versions import TableVersion
from pipelines.dataset_catalog.dataset_entries import DatasetEntry, entry_lines, read_entries, search_entries
from pipelines.dataset_catalog.dataset_pages import STYLE, dataset_page, index_page, write_pages
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.browser import needs_chromium, show_page
from tests.pipelines.data.contracts import column, contract
from tests.pipelines.lineage.example_facts import NOW, bundle, facts, release, version
from tests.sample_project import PROJECT, work_in_sample

ODD = "<script>alert('&\"')</script>"
ENTRY = DatasetEntry(
    contract(
        column("age", "integer", description=f"Age {ODD}", classification="restricted", tags=["pii"]),
        column("size", "number", minimum=0),
        description={"purpose": f"Visits {ODD}"},
        team={"name": "clinic & co"},
        tags=["monthly"],
    ),
    versions=(
        TableVersion(
            "7", None, NOW, 12, 12, "append", ODD, None, "1.0.0", ("audited",), is_current=True, is_included=True
        ),
    ),
)
FACTS = facts(version(7), bundle(1, snapshot=7), release(1, 1, is_live=True))


class Checked(HTMLParser):
    """Parser that notes what a page opens, closes and refers to."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("text", [index_page("mlops", [ENTRY]), dataset_page("mlops", ENTRY, FACTS)])
def test_a_page_is_well_formed_and_asks_no_other_host(text: str) -> None:
    page = Checked(text)
    assert page.open == []
    assert "script" not in page.seen and "<script" not in text
    assert all(re.fullmatch(r"[a-z-]+\.html", link) for link in page.links)
    assert "://" not in text
    assert len(text.encode()) < 150_000


def test_a_page_shows_the_contract_the_versions_and_the_lineage() -> None:
    text = dataset_page("mlops", ENTRY, FACTS)
    for expected in ("clinic &amp; co", "restricted", "minimum: at least 0", "audited", "12 on 2026-11-30", "release"):
        assert expected in text, expected
    assert text == dataset_page("mlops", ENTRY, FACTS)
    assert "Lineage" not in dataset_page("mlops", ENTRY, None)
    assert "Versions" not in dataset_page("mlops", replace(ENTRY, versions=()), None)


def luminance(colour: str) -> float:
    full = "".join(digit * 2 for digit in colour) if len(colour) == 3 else colour
    parts = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_dataset_that_is_called_index_does_not_hide_the_list(tmp_path: Path) -> None:
    contract = ENTRY.contract.model_copy(update={"id": "urn:x", "name": "index"})
    other = replace(ENTRY, contract=contract)
    pages = write_pages(tmp_path, "mlops", [ENTRY, other], None)
    assert len({page.name for page in pages}) == 3
    assert (tmp_path / "index.html").read_text() == index_page("mlops", [ENTRY, other])
    assert 'href="index_.html"' in (tmp_path / "index.html").read_text()


def test_text_has_the_contrast_of_wcag_aa_on_light_and_dark_pages() -> None:
    themes = [dict(re.findall(r"--(\w+): #(\w+)", part)) for part in STYLE.split("@media (prefers-color-scheme")[:2]]
    assert [len(theme) for theme in themes] == [7, 7]
    for theme in themes:
        for text in ("text", "soft", "link", "mark"):
            for ground in ("page", "box"):
                low, high = sorted((luminance(theme[text]), luminance(theme[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground, theme)


def test_every_word_of_a_search_must_be_mentioned() -> None:
    entries = [ENTRY, DatasetEntry(contract(column("weight", "number"), team={"name": "clinic"}))]
    assert [places for _, places in search_entries(entries, "CLINIC pii")] == [["owner", "column age"]]
    assert len(search_entries(entries, "clinic")) == 2
    assert search_entries(entries, "clinic nothing") == search_entries(entries, " ") == []


def test_the_list_names_owner_version_personal_columns_and_rows() -> None:
    assert entry_lines([ENTRY])[0] == (
        "visits  1.0.0 (active), 3 columns, 1 personal, owner clinic & co, 12 rows of 2026-11-30 00:00 UTC"
    )


def test_the_entries_of_a_project_name_their_readers() -> None:
    (entry,) = read_entries(Project(PROJECT))
    assert [model.name for model in entry.readers] == ["diabetes-progression"]
    assert "(target)" in dataset_page("mlops", entry, None)
    (model,) = entry.readers
    assert "sex" in model.protected
    blind = model.model_copy(update={"features": tuple(name for name in model.features if name not in ("sex", "age"))})
    page = dataset_page("mlops", replace(entry, readers=(blind,)), None)
    assert (page.count("(protected)"), page.count("(slice)")) == (1, 1), "their loss would stop training, too"


def test_the_commands_work_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_sample(monkeypatch, tmp_path)
    runner = CliRunner()
    listed = runner.invoke(catalog, ["list"])
    assert listed.exit_code == 0 and "diabetes-patients  1.0.0 (active), 12 columns" in listed.output
    assert "found in column bp" in runner.invoke(catalog, ["search", "blood", "pressure"]).output
    nothing = runner.invoke(catalog, ["search", "unicorn"])
    assert (nothing.exit_code, nothing.output) == (1, "no dataset mentions unicorn\n")
    rendered = runner.invoke(catalog, ["render", "--output", str(tmp_path / "pages")])
    assert rendered.exit_code == 0, rendered.output
    pages = {f"{dataset}.html" for dataset in Project(PROJECT).dataset_names}
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"index.html", *pages}
    assert '<td data-head="Owner">' in (tmp_path / "pages" / "index.html").read_text(), "narrow windows hide the heads"
    (tmp_path / "file").write_text("")
    with pytest.raises(MlopsError, match="cannot be written"):
        write_pages(tmp_path / "file", "mlops", [ENTRY], None)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("page", [index_page("mlops", [ENTRY]), dataset_page("mlops", ENTRY, FACTS)])
def test_a_browser_shows_a_page_without_errors_on_a_phone(page: str, tmp_path: Path) -> None:
    """The page's own width stays that of the window, so wide tables scroll by themselves."""
    shown = show_page(page, tmp_path)
    assert (shown.width, shown.complaints) == (360, ())
    assert shown.needed <= shown.width
