"""results.json as a page and a picture. No figure is written by hand: all of them come through here."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).parent
TRIED = FOLDER / "tried.json"

COLOURS = {
    "ours": "#0b6e4f",
    "hand-written": "#3a7ca5",
    "usual": "#c97b1a",
    "limit": "#8d99ae",
    "function host": "#5aa786",
    "stock adapter": "#a44a3f",
}


@dataclass(frozen=True)
class Target:
    """What a figure should be, and what it is; None where the run did not measure it."""

    name: str
    wanted: float
    found: float | None
    at_most: bool = False

    @property
    def bound(self) -> str:
        """What the figure should be, in signs."""
        return f"{'≤' if self.at_most else '≥'} {self.wanted}"

    @property
    def met(self) -> bool | None:
        """Whether it is as it should be."""
        if self.found is None:
            return None
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


def figure(outcomes: Sequence[dict[str, float]], name: str = "rate") -> float:
    """The median over the rounds."""
    return median(outcome[name] for outcome in outcomes)


def ratio(above: Sequence[dict[str, float]], below: Sequence[dict[str, float]], name: str = "rate") -> float:
    """The median of the rounds' ratios: what slowed a round down slowed both of its sides."""
    return median(one[name] / other[name] for one, other in zip(above, below, strict=True))


def targets(found: dict[str, Any]) -> list[Target]:
    """What the project promises, against what the run found."""
    rates, growth, ledger, consents = found["throughput"], found.get("growth"), found["ledger"], found["consents"]

    def against(workload: str, peer: str, ours: str = "ours") -> float | None:
        return ratio(rates[workload][ours], rates[workload][peer]) if workload in rates else None

    sizes = found["plan"]["sizes"] or (1_000, 1_000_000)
    least, most = sizes[0], sizes[-1]

    def grown(workload: str, base: str) -> float | None:
        return ratio(growth[workload][str(most)], growth[base][str(least)], "p50_ms") if growth else None

    few, many = consents
    imports = found["import_ms"]
    return [
        *(Target(f"{name}: ours / hand-written", 1.0, against(name, "hand-written")) for name in ("gate", "get")),
        *(Target(f"{name}: ours / usual", 4.0, against(name, "usual")) for name in ("gate", "get")),
        Target("create: ours / hand-written", 0.9, against("create", "hand-written")),
        Target("gate: function host / stock adapter", 1.4, against("gate", "stock adapter", "function host")),
        Target(
            f"time of the deep page at {most:,} twins / of the first at {least:,}",
            1.2,
            grown("list, deep page", "list, first page"),
            at_most=True,
        ),
        Target(
            f"time of the gate at {most:,} twins / at {least:,}",
            1.2,
            grown("gate", "gate"),
            at_most=True,
        ),
        Target(
            f"time of the gate of a twin with {int(many):,} consents / with {few}",
            1.2,
            ratio(consents[many], consents[few], "p50_ms"),
            at_most=True,
        ),
        Target(
            f"p99 of the gate while a ledger of {ledger['events']:,} events is verified / idle",
            2.0,
            ratio(ledger["verifying"], ledger["idle"], "p99_ms"),
            at_most=True,
        ),
        Target(
            "import of function_app / of its five libraries alone",
            1.4,
            median(imports["function_app"]) / median(imports["libraries"]),
            at_most=True,
        ),
    ]


def page(found: dict[str, Any], tried: Sequence[dict[str, Any]] = ()) -> str:
    """The whole page in Markdown."""
    return "\n".join([*_lines(found, tried), ""])


def _lines(found: dict[str, Any], tried: Sequence[dict[str, Any]]) -> Iterable[str]:
    plan, machine = found["plan"], found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    yield "# Results of `make bench`"
    yield ""
    yield "Written by the run; do not edit. What it means: [README.md](README.md)."
    yield ""
    yield (
        f"{found['made_at']}, profile {plan['name']}, {found['seconds']} s. {machine['processor']}, "
        f"{machine['processors']} processors; {machine['system']}; Python {machine['python']}; {versions}. "
        f"{plan['rows']:,} twins, {plan['connections']} connections, {plan['rounds']} rounds of {plan['seconds']} s."
    )
    yield from ("", "## Targets", "")
    yield from table(
        ("", "target", "found", ""),
        (
            (
                target.name,
                target.bound,
                "" if target.found is None else f"{target.found:.2f}",
                {True: "met", False: "**missed**", None: "not measured"}[target.met],
            )
            for target in targets(found)
        ),
    )
    yield from ("", "## Requests a second", "", "Median of the rounds (least to most).", "")
    names = list(next(iter(found["throughput"].values())))
    yield from table(
        ("", *names),
        ((workload, *(_spread(apps[name]) for name in names)) for workload, apps in found["throughput"].items()),
    )
    yield from ("", "![Requests a second against hand-written](results.svg)", "")
    yield from ("## Processor time of the server a request", "", "Microseconds, median of the rounds.", "")
    yield from table(
        ("", *names),
        (
            (workload, *(f"{figure(apps[name], 'cpu_us'):,.0f}" for name in names))
            for workload, apps in found["throughput"].items()
        ),
    )
    yield from ("", f"## Memory after {plan['warm_up']:,} requests", "", "Resident, in MB.", "")
    yield from table(names, [[f"{found['rss_mb'][name]:.0f}" for name in names]])
    if "growth" in found:
        yield from _growth(found["growth"])
    yield from _ledger(found)
    yield from ("", "## Import", "", "Milliseconds in a new interpreter: median (least to most).", "")
    yield from table(
        ("function_app", "fastapi, asyncpg, motor, jose, azure.functions"),
        [[_of(found["import_ms"][name]) for name in ("function_app", "libraries")]],
    )
    if "profile" in found:
        yield from _profile(found["profile"])
    if tried:
        yield from _tried(tried)


def _growth(growth: dict[str, Any]) -> Iterable[str]:
    sizes = list(growth["plans"])
    yield from ("", "## As the number of twins grows", "", "Milliseconds a request, p50, median of the rounds.", "")
    yield from table(
        ("twins", *(f"{int(rows):,}" for rows in sizes)),
        (
            (workload, *(f"{figure(outcomes[rows], 'p50_ms'):.2f}" for rows in sizes))
            for workload, outcomes in growth.items()
            if workload != "plans"
        ),
    )
    yield from ("", "How PostgreSQL reads for the gate:", "")
    yield from table(("twins", "plan"), ((f"{int(rows):,}", ", ".join(plan)) for rows, plan in growth["plans"].items()))


def _ledger(found: dict[str, Any]) -> Iterable[str]:
    ledger, consents = found["ledger"], found["consents"]
    yield from ("", "## The gate beside other things", "", "Milliseconds, median of the rounds.", "")
    rows = [
        ("idle", ledger["idle"]),
        (f"while a ledger of {ledger['events']:,} events is verified", ledger["verifying"]),
        *((f"of a twin with {int(count):,} consents", outcomes) for count, outcomes in consents.items()),
    ]
    yield from table(
        ("", "p50", "p99"),
        ((name, f"{figure(outcomes, 'p50_ms'):.2f}", f"{figure(outcomes, 'p99_ms'):.2f}") for name, outcomes in rows),
    )
    yield ""
    yield f"One verification takes {median(ledger['verification_s']):.1f} s."


def _profile(profile: dict[str, dict[str, float]]) -> Iterable[str]:
    yield from ("", "## Where the time goes", "", "Share of the event loop's time, by samples.", "")
    parts = list(dict.fromkeys(part for shares in profile.values() for part in shares))
    yield from table(
        ("", *profile),
        ((part, *(f"{shares.get(part, 0):.0%}" for shares in profile.values())) for part in parts),
    )


def _tried(tried: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield from (
        "",
        "## What was tried",
        "",
        "Processor time a request after the change / before, by `bench.tried`.",
        "",
    )
    names = list(tried[0]["workloads"])
    yield from table(
        ("", *names, "kept"),
        (
            (
                one["change"],
                *(
                    f"{ratio(one['workloads'][name]['after'], one['workloads'][name]['before'], 'cpu_us'):.2f}"
                    for name in names
                ),
                "yes" if one["kept"] else "no",
            )
            for one in tried
        ),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _spread(outcomes: Sequence[dict[str, float]]) -> str:
    rates = [outcome["rate"] for outcome in outcomes]
    return f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def _of(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


# --- The picture ------------------------------------------------------------------------------------

_WIDTH, _LEFT, _BAR, _GAP = 860, 130, 13, 14


def picture(found: dict[str, Any]) -> str:
    """Bars of requests a second in SVG, where hand-written is 1."""
    rates = found["throughput"]
    names = list(next(iter(rates.values())))
    relative = {
        workload: {name: ratio(apps[name], apps["hand-written"]) for name in names} for workload, apps in rates.items()
    }
    longest = max(value for apps in relative.values() for value in apps.values())
    scale = (_WIDTH - _LEFT - 60) / longest
    shapes, y = [], 40
    for number, name in enumerate(names):
        x = _LEFT + number * 118
        shapes += [
            f'<rect x="{x}" y="12" width="10" height="10" fill="{COLOURS[name]}"/>',
            f'<text x="{x + 14}" y="21">{name}</text>',
        ]
    for workload, apps in relative.items():
        middle = y + len(names) * _BAR / 2 + 4
        shapes.append(f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end" font-weight="bold">{workload}</text>')
        for name, value in apps.items():
            width = value * scale
            shapes += [
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}" fill="{COLOURS[name]}"/>',
                f'<text x="{_LEFT + width + 4:.1f}" y="{y + _BAR - 3}" font-size="10">{value:.2f}</text>',
            ]
            y += _BAR
        y += _GAP
    one = _LEFT + scale
    shapes.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="34" y2="{y - _GAP}" stroke="#222" stroke-dasharray="3 3"/>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" font-size="12">',
            "<style>text { font-family: sans-serif; fill: #222 }</style>",
            "<title>Requests a second, where hand-written is 1</title>",
            f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def write(folder: Path) -> str:
    """Write results.md and results.svg next to the results.json in `folder`, and return the page."""
    found = json.loads((folder / "results.json").read_text())
    text = page(found, json.loads(TRIED.read_text()))
    (folder / "results.md").write_text(text)
    (folder / "results.svg").write_text(picture(found))
    return text
