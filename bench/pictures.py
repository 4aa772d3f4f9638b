"""The pictures of a run, in SVG that is readable on light and on dark pages."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

SHORT = ("ours", "usual")
WIDTH, LEFT = 860, 130
_BAR, _GAP = 13, 14
_HEIGHT, _TOP, _BOTTOM = 340, 48, 290

_HUES = {
    "ours": ("#0b6e4f", "#3fb68b"),
    "hand-written": ("#3a7ca5", "#6cb2dd"),
    "silent": ("#8bb8d6", "#3f6f8f"),
    "usual": ("#b96a0c", "#e8a14a"),
    "limit": ("#6c7789", "#9aa7ba"),
    "function host": ("#5aa786", "#8fd3b6"),
    "stock adapter": ("#a44a3f", "#e0897e"),
}
"""The colours of each application, on light and on dark."""
_LINES = ("ours", "hand-written", "usual", "stock adapter", "limit", "function host")
"""Whose colours the lines have, in turn."""

type Ratio = Mapping[str, Mapping[str, float]]
"""Requests per second where hand-written is 1, by workload and application."""


def bars(relative: Ratio, names: Sequence[str]) -> str:
    """Return a bar for each workload and application; a dashed line is where hand-written is."""
    scale = (WIDTH - LEFT - 60) / max(1.0, *(apps[name] for apps in relative.values() for name in names))
    one, shapes, y = LEFT + scale, list(_legend(names)), 40
    for workload, apps in relative.items():
        middle = y + len(names) * _BAR / 2 + 4
        shapes.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end" font-weight="bold">{workload}</text>')
        for name in names:
            width = apps[name] * scale
            shapes += [
                f'<rect class="{_key(name)}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}"/>',
                f'<text x="{LEFT + width + 4:.1f}" y="{y + _BAR - 3}" font-size="10">{apps[name]:.2f}</text>',
            ]
            y += _BAR
        y += _GAP
    shapes.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="34" y2="{y - _GAP}" stroke-dasharray="3 3"/>')
    if "hand-written" not in names:
        shapes.append(f'<text x="{one:.1f}" y="26" text-anchor="middle">hand-written = 1</text>')
    return _drawing("Requests per second, where hand-written is 1", y, shapes)


def lines(growth: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> str:
    """Return a line for each workload: milliseconds (p50) over the number of twins, which grows by powers."""
    points = {
        workload: {int(rows): median(round_["p50_ms"] for round_ in found) for rows, found in outcomes.items()}
        for workload, outcomes in growth.items()
    }
    sizes = sorted({rows for each in points.values() for rows in each})
    most = math.ceil(max(value for each in points.values() for value in each.values()))
    right = WIDTH - 70

    def place(rows: int, value: float) -> tuple[float, float]:
        share = math.log(rows / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return LEFT + share * (right - LEFT), _BOTTOM - value / most * (_BOTTOM - _TOP)

    shapes = list(_legend(points, _LINES))
    for step in range(5):
        _, y = place(sizes[0], most * step / 4)
        shapes += [
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{most * step / 4:g} ms</text>',
        ]
    for rows in sizes:
        x, _ = place(rows, 0)
        shapes.append(f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{rows:,} twins</text>')
    for colour, each in zip(_LINES, points.values(), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(each.items())))
        shapes.append(f'<polyline class="{_key(colour)}" points="{path}"/>')
    return _drawing("Milliseconds per request (p50), as the number of twins grows", _HEIGHT, shapes)


def _legend(names: Iterable[str], colours: Sequence[str] | None = None) -> Iterator[str]:
    for number, name in enumerate(names):
        x = LEFT + number * 104
        yield f'<rect class="{_key(colours[number] if colours else name)}" x="{x}" y="12" width="10" height="10"/>'
        yield f'<text x="{x + 14}" y="21">{name}</text>'


def _key(name: str) -> str:
    return name.replace(" ", "-")


def _drawing(title: str, height: float, shapes: Iterable[str]) -> str:
    def style(dark: int) -> str:
        fills = "".join(
            f".{_key(name)} {{ fill: {hues[dark]}; stroke: {hues[dark]} }} " for name, hues in _HUES.items()
        )
        text, grid, page = (("#1f2328", "#d0d7de", "#ffffff"), ("#e6edf3", "#3d444d", "#0d1117"))[dark]
        return (
            f".page {{ fill: {page} }} text {{ fill: {text} }} line {{ stroke: {text} }} .grid {{ stroke: {grid} }} "
            f"{fills}polyline {{ fill: none !important; stroke-width: 2 }}"
        )

    form = f'viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="12"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {form}>',
            f"<title>{title}</title>",
            f"<style>{style(0)} @media (prefers-color-scheme: dark) {{ {style(1)} }}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def of(found: Mapping[str, Any], relative: Ratio) -> dict[str, str]:
    """Return the pictures of a run by file name."""
    apps = list(next(iter(relative.values())))
    made = {"results.svg": bars(relative, apps), "summary.svg": bars(relative, SHORT)}
    if "growth" in found:
        made["growth.svg"] = lines({name: each for name, each in found["growth"].items() if name != "plans"})
    return made
