"""Render the catalogue as static HTML pages: no scripts, no request to another host, equal bytes for equal input."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipelines.data.checks import contract_rules, row_conditions, unique_groups
from pipelines.data.contract_page import batch_rules_of
from pipelines.dataset_catalog.dataset_entries import DatasetEntry
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.classification import is_personal
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.plurals import counted
from pipelines.lineage.drawing import draw_graph
from pipelines.lineage.facts import LineageFacts
from pipelines.lineage.graph import LineageNode, build_graph, trace

MOST_VERSIONS = 20

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1f2328; --soft: #57606a; --line: #d0d7de; --box: #f6f8fa;
  --link: #0550ae; --mark: #953800; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --box: #161b22; --link: #79c0ff; --mark: #ffa657; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.25rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 ui-sans-serif, system-ui, sans-serif; overflow-wrap: break-word; }
a { color: var(--link); } a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
h1 { line-height: 1.2; margin: .5rem 0; } h2 { margin: 2rem 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
.scroll > svg { display: block; max-width: max(100%, 40rem); height: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .5rem .75rem; color: var(--soft); }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem; border-top: 1px solid var(--line); }
thead th { background: var(--box); border-top: 0; }
ul { margin: 0; padding-left: 1.1rem; } .mark { color: var(--mark); font-weight: 600; } .soft { color: var(--soft); }
@media (max-width: 44rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  table, caption, tbody, tr, td { display: block; } thead { display: none; } tr { border-top: 1px solid var(--line);
  padding: .5rem 0; } td { border: 0; padding: .125rem .75rem; } td:empty { display: none; }
  td[data-head]::before { content: attr(data-head) " "; color: var(--soft); } }
"""


def write_pages(folder: Path, project: str, entries: Sequence[DatasetEntry], facts: LineageFacts | None) -> list[Path]:
    """Write the pages of the catalogue into a folder: `index.html`, and one page for each dataset.

    Args:
        folder: created if it is missing; other files in it stay.
        project: name of the project.
        entries: the datasets.
        facts: facts of lineage for the drawings; None without any.

    Raises:
        MlopsError: a page cannot be written.
    """
    pages = {"index.html": index_page(project, entries)}
    pages |= {page_name(entry.name): dataset_page(project, entry, facts) for entry in entries}
    written = []
    for name, text in pages.items():
        try:
            write_atomically(folder / name, text)
            (folder / name).chmod(0o644)  # pages are for a web server, too
        except OSError as error:
            raise MlopsError(f"{folder / name} cannot be written: {error.strerror or error}") from None
        written.append(folder / name)
    return written


def page_name(dataset: str) -> str:
    """Return the file name of a dataset's page. A dataset may be called `index`; no name has an underscore."""
    return f"{dataset}.html" if dataset != "index" else "index_.html"


def index_page(project: str, entries: Sequence[DatasetEntry]) -> str:
    """Return the page that lists the datasets."""
    rows = [
        [
            f'<a href="{escape(page_name(entry.name))}">{escape(entry.name)}</a>',
            escape(entry.purpose),
            escape(entry.owner or "not named"),
            f"{escape(entry.contract.version)} ({escape(entry.contract.status)})",
            _rows(entry),
        ]
        for entry in entries
    ]
    body = f"<h1>Datasets of {escape(project)}</h1>"
    body += _table(counted(len(rows), "dataset"), ("Dataset", "Purpose", "Owner", "Contract", "Rows"), rows)
    return _page(f"Datasets of {project}", body)


def dataset_page(project: str, entry: DatasetEntry, facts: LineageFacts | None) -> str:
    """Return the page of a dataset."""
    contract = entry.contract
    parts = [
        '<nav><a href="index.html">All datasets</a></nav>',
        f"<h1>{escape(entry.name)}</h1>",
        f"<p>{escape(entry.purpose)}</p>" if entry.purpose else "",
        _list(_facts_of(entry)),
        "<h2>Columns</h2>",
        _columns(entry),
    ]
    tables = [f"Each file: {text}" for text in batch_rules_of(contract, "")]
    tables += [f"Unique together: {', '.join(g.columns)}" for g in unique_groups(contract) if len(g.columns) > 1]
    tables += [
        f"Each row: {rule.name}: {rule.expected}"
        for rule in row_conditions(contract)
        if rule.column not in contract.columns
    ]
    if tables:
        parts.append("<h2>Rules on the dataset</h2>" + _bullets(tables))
    if entry.versions:
        parts += ["<h2>Versions</h2>", _versions(entry)]
    drawn = _lineage(entry, facts) if facts is not None else ""
    if drawn and facts is not None:
        parts.append(f'<h2>Lineage</h2><p class="soft">As of {facts.gathered:%Y-%m-%d %H:%M} UTC.</p>')
        parts.append(f'<div class="scroll" tabindex="0">{drawn}</div>')
    return _page(f"{entry.name} - datasets of {project}", "\n".join(part for part in parts if part))


def _facts_of(entry: DatasetEntry) -> list[tuple[str, str]]:
    contract = entry.contract
    description = {key: " ".join(str(value).split()) for key, value in (contract.description or {}).items()}
    facts = [
        ("Owner", escape(entry.owner or "not named")),
        ("Contract", f"{escape(contract.version)} ({escape(contract.status)})"),
        ("Domain", escape(contract.domain or "")),
        ("Usage", escape(description.get("usage", ""))),
        ("Limitations", escape(description.get("limitations", ""))),
        ("Tags", escape(", ".join(contract.tags))),
        ("Ingested", escape(f"{contract.ingest_schedule} (cron, UTC)" if contract.ingest_schedule else "on request")),
        ("Rows", _rows(entry)),
        ("Read by", escape(", ".join(model.name for model in entry.readers) or "no model")),
        ("Load it", f"<code>pipelines.data.load({escape(repr(entry.name))})</code>"),
    ]
    return [(name, text) for name, text in facts if text]


def _rows(entry: DatasetEntry) -> str:
    current = entry.current
    if current is None:
        return ""
    return f"{current.rows if current.rows is not None else 'unknown'} on {current.at:%Y-%m-%d %H:%M} UTC"


def _role(model: Model, column: str) -> str:
    """Return the role of a column in a model."""
    if column == model.target:
        return "target"
    if column in model.features:
        return "feature"
    return "protected" if column in model.protected else "slice"


def _columns(entry: DatasetEntry) -> str:
    contract = entry.contract
    rules: dict[str, list[str]] = {}
    for rule in contract_rules(contract):
        if rule.name not in ("type", "finite"):
            rules.setdefault(rule.column, []).append(f"{rule.name}: {rule.expected}")
    for group in unique_groups(contract):
        if len(group.columns) == 1:
            rules.setdefault(group.columns[0], []).append(f"{group.name}: no two rows share it")
    read = {
        name: [f"{model.name} ({_role(model, name)})" for model in entry.readers if name in model.needed_columns]
        for name in contract.columns
    }
    rows = []
    for name, column in contract.columns.items():
        mark = column.classification or ("personal" if is_personal(column) else "")
        found = [*rules.get(name, ()), *batch_rules_of(contract, name)]
        rows.append(
            [
                f"<code>{escape(name)}</code>" + (f'<br><span class="mark">{escape(mark)}</span>' if mark else ""),
                escape(f"{column.logical_type}, stored as {column.stored_as}"),
                escape(" ".join((column.description or "").split())),
                _bullets(found),
                escape(", ".join(read[name])),
            ]
        )
    return _table(counted(len(rows), "column"), ("Column", "Type", "Meaning", "Rules", "Read by"), rows)


def _versions(entry: DatasetEntry) -> str:
    rows = [
        [
            f"<code>{escape(version.snapshot)}</code>",
            f"{version.at:%Y-%m-%d %H:%M} UTC",
            str(version.rows if version.rows is not None else "unknown"),
            escape(version.file or version.operation),
            escape(version.contract or ""),
            escape(", ".join([*(["current"] if version.is_current else []), *version.tags])),
        ]
        for version in entry.versions[:MOST_VERSIONS]
    ]
    shown = counted(len(entry.versions), "version")
    if len(entry.versions) > MOST_VERSIONS:
        shown = f"the latest {MOST_VERSIONS} of {shown}"
    return _table(shown, ("Snapshot", "Time (UTC)", "Rows", "Added by", "Contract", "Names"), rows)


def _lineage(entry: DatasetEntry, facts: LineageFacts) -> str:
    graph = build_graph(facts)
    starts = [node for node in graph.edges if _belongs(node, entry.name)]
    if not starts:
        return ""
    found = trace(graph, starts, back=False, forward=True)
    named = {node for node in found.edges if node.kind != "version" or found.edges[node]}
    drawn = found.part({node for node in named if node.kind not in ("column", "version") or found.edges[node]})
    # An `svg` element in a page has no namespace prefix and needs no declaration.
    return draw_graph(drawn, f"Lineage of {entry.name}").replace(' xmlns="http://www.w3.org/2000/svg"', "")


def _belongs(node: LineageNode, dataset: str) -> bool:
    return (node.kind == "contract" and node.name.startswith(f"{dataset}@")) or (
        node.kind == "file" and node.name.split("/")[1] == dataset
    )


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    # In a narrow window each row is a card, where the first cell is its title and the others need their head.
    names = ["", *(f' data-head="{escape(each)}"' for each in heads[1:])]
    body = "\n".join(
        "<tr>" + "".join(f"<td{name}>{cell}</td>" for name, cell in zip(names, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _list(facts: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in facts) + "</dl>"


def _bullets(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def _page(title: str, body: str) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )
