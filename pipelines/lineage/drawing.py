"""Draw a lineage graph as SVG; data flows from left to right."""

from __future__ import annotations

from html import escape

from pipelines.lineage.graph import Kind, LineageGraph, LineageNode

WIDTH, HEIGHT = 230, 44
"""Size of a box, in pixels."""

GAP_X, GAP_Y = 90, 14
MARGIN = 20
HEADING = 24
MOST_DRAWN = 40
"""Boxes of a kind; further ones are counted below them."""

LONGEST_NAME = 29
LONGEST_NOTE = 31

STYLE = """
  .box { fill: #f6f8fa; stroke: #57606a; }
  .bundle { fill: #ddf4ff; stroke: #0969da; }
  .release { fill: #dafbe1; stroke: #1a7f37; }
  .edge { fill: none; stroke: #8c959f; stroke-width: 1.2; }
  .live { stroke: #1a7f37; stroke-width: 2.4; }
  text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; }
  .note { font-size: 10.5px; fill: #57606a; }
  .heading { font-weight: 600; }
  .page { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } .box { fill: #161b22; stroke: #8b949e; } text { fill: #e6edf3; }
    .bundle { fill: #121d2f; stroke: #4493f8; } .release { fill: #12261e; stroke: #3fb950; }
    .note { fill: #9198a1; } .edge { stroke: #656c76; } .live { stroke: #3fb950; }
  }
"""

LAYERS: tuple[tuple[Kind, ...], ...] = (
    ("contract", "file"),
    ("version", "column"),
    ("bundle", "input"),
    ("release", "prediction"),
)
"""Kinds of nodes that are drawn below each other. Every edge leads to the next layer, so none crosses a box."""

HEADINGS: dict[Kind, str] = {
    "contract": "Contracts",
    "column": "Columns",
    "file": "Landing files",
    "version": "Dataset versions",
    "bundle": "Bundles",
    "release": "Releases",
    "input": "Inputs of batch predictions",
    "prediction": "Batch predictions",
}


def draw_graph(graph: LineageGraph, title: str) -> str:
    """Return a graph as a stand-alone SVG, for light and dark pages; the same graph gives the same text."""
    places: dict[LineageNode, tuple[int, int]] = {}
    labels: list[tuple[int, int, str, str]] = []
    layers = [[kind for kind in layer if any(node.kind == kind for node in graph.edges)] for layer in LAYERS]
    layers = [layer for layer in layers if layer]
    lowest = MARGIN
    for at, layer in enumerate(layers):
        x, y = MARGIN + at * (WIDTH + GAP_X), MARGIN
        for kind in layer:
            nodes = sorted(node for node in graph.edges if node.kind == kind)
            labels.append((x, y + 6, "heading", HEADINGS[kind]))
            y += HEADING
            for node in nodes[:MOST_DRAWN]:
                places[node] = (x, y)
                y += HEIGHT + GAP_Y
            if len(nodes) > MOST_DRAWN:
                labels.append((x + 10, y + 14, "note", f"and {len(nodes) - MOST_DRAWN} more"))
                y += HEADING
            y += GAP_Y
        lowest = max(lowest, y)
    width = 2 * MARGIN + len(layers) * WIDTH + max(0, len(layers) - 1) * GAP_X
    height = lowest + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    parts += [f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>' for x, y, kind, text in labels]
    parts += _edges(graph, places)
    for node, (x, y) in places.items():
        parts.append(_box(node, graph.notes.get(node, ""), x, y))
    return "\n".join([*parts, "</svg>", ""])


def _edges(graph: LineageGraph, places: dict[LineageNode, tuple[int, int]]) -> list[str]:
    drawn = []
    for source in sorted(places):
        for target in sorted(graph.edges[source]):
            if target not in places or source.kind == target.kind:
                continue
            (x1, y1), (x2, y2) = places[source], places[target]
            x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
            bend = (x2 - x1) // 2
            live = " live" if (source, target) in graph.live else ""
            drawn.append(f'<path class="edge{live}" d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"/>')
    return drawn


def _box(node: LineageNode, note: str, x: int, y: int) -> str:
    kind = f" {node.kind}" if node.kind in ("bundle", "release") else ""
    return (
        f"<g><title>{escape(f'{node}: {note}' if note else str(node))}</title>"
        f'<rect class="box{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + 10}" y="{y + 18}">{escape(_short(node.name))}</text>'
        f'<text class="note" x="{x + 10}" y="{y + 34}">{escape(_short(note, LONGEST_NOTE))}</text></g>'
    )


def _short(text: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a text in the middle, so that its start and end can be told from others."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"
