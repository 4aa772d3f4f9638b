"""results.json as a page with pictures. No figure is written by hand: all of them pass through this file."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import pictures
from bench.workloads import LISTS, WRITTEN

FOLDER = Path(__file__).parent
TRIED = FOLDER / "tried.json"


@dataclass(frozen=True)
class Target:
    """A figure with its target; `found` is None if the run did not measure it."""

    name: str
    wanted: float
    found: float | None
    at_most: bool = False

    @property
    def bound(self) -> str:
        """The target in signs."""
        return f"{'≤' if self.at_most else '≥'} {self.wanted}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if it was not measured."""
        if self.found is None:
            return None
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


def figure(outcomes: Sequence[dict[str, float]], name: str = "rate") -> float:
    """Return the median over the rounds."""
    return median(outcome[name] for outcome in outcomes)


def ratio(above: Sequence[dict[str, float]], below: Sequence[dict[str, float]], name: str = "rate") -> float:
    """Return the median of the rounds' ratios: a slow round is slow for both of its sides."""
    return median(one[name] / other[name] for one, other in zip(above, below, strict=True))


def targets(found: dict[str, Any]) -> list[Target]:
    """Return the project's targets, with the figures of the run."""
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
        *(
            Target(f"{name}: ours / hand-written", 0.95, against(name, "hand-written"))
            for name in (*LISTS, "persona get")
        ),
        *_written_targets(rates),
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
        *(
            [Target("gate: tokens of RS256 / of HS256, once verified", 0.98, ratio(*_by_token(found)))]
            if "tokens" in found
            else []
        ),
        Target(
            "import of function_app / of its five libraries alone",
            1.4,
            median(imports["function_app"]) / median(imports["libraries"]),
            at_most=True,
        ),
        *_whole_targets(found, f"at {most:,} twins / at {least:,}", grown),
        *_neighbour_targets(found),
        *_renewal_targets(found),
        *_start_targets(found),
    ]


def _written_targets(rates: dict[str, Any]) -> Iterable[Target]:
    """Yield those of writes: a hand-written peer logs as ours does, another logs nothing."""
    for name in filter(rates.__contains__, WRITTEN):
        apps = rates[name]
        # Until 2026-11-28 there was one of them, and it logged nothing.
        silent = apps.get("silent", apps["hand-written"])
        if "silent" in apps:
            yield Target(f"{name}: ours / hand-written", 0.95, ratio(apps["ours"], apps["hand-written"]))
        yield Target(f"{name}: ours / hand-written that logs nothing", 0.85, ratio(apps["ours"], silent))


def _whole_targets(found: dict[str, Any], sizes: str, grown: Callable[[str, str], float | None]) -> Iterable[Target]:
    # Runs from before have none.
    if consents := found.get("consents, all attributes"):
        few, many = consents
        times = grown("gate, all attributes", "gate, all attributes")
        yield Target(f"time of the gate with all attributes {sizes}", 1.2, times, at_most=True)
        name = f"time of the gate with all attributes of a twin with {int(many):,} consents / with {few}"
        yield Target(name, 1.2, ratio(consents[many], consents[few], "p50_ms"), at_most=True)


def _neighbour_targets(found: dict[str, Any]) -> Iterable[Target]:
    # Runs from before have none.
    if near := found.get("neighbour"):
        times = figure(near["beside"], "p99_ms") / figure(near["idle"], "p99_ms")
        yield Target("p99 of the gate beside one account's worst / idle", 2.0, times, at_most=True)


def _renewal_targets(found: dict[str, Any]) -> Iterable[Target]:
    # Runs from before have none.
    if renewed := found.get("renewals"):
        for act, times in renewed["ms"].items():
            name = f"slowest {act} on a consent of {renewed['renewals']:,} renewals, ms"
            yield Target(name, 50.0, max(times), at_most=True)


def _start_targets(found: dict[str, Any]) -> Iterable[Target]:
    # Runs from before have none.
    if telemetry := found.get("telemetry"):
        times = ratio(telemetry["gate"]["on"], telemetry["gate"]["off"], "cpu_us")
        yield Target("gate: processor time with telemetry / without", 1.25, times, at_most=True)
    if starts := found.get("cold_start_ms"):
        times = median(start["first answer"] / start["second answer"] for start in starts)
        yield Target("cold start: first authenticated answer / the second", 4.0, times, at_most=True)


def _by_token(found: dict[str, Any]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    tokens = found["tokens"]
    return tokens["RS256"], tokens["HS256"]


def page(found: dict[str, Any], tried: Sequence[dict[str, Any]] = ()) -> str:
    """Return the whole page in Markdown."""
    return "\n".join([*_lines(found, tried), ""])


def _lines(found: dict[str, Any], tried: Sequence[dict[str, Any]]) -> Iterable[str]:
    plan, machine = found["plan"], found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    yield "# Results of `make bench`"
    yield ""
    yield "Written by the run; do not edit. [README.md](README.md) explains the figures."
    yield ""
    yield (
        f"{found['made_at']}, profile {plan['name']}, {found['seconds']} s. {machine['processor']}, "
        f"{machine['processors']} processors; {machine['system']}; Python {machine['python']}; {versions}. "
        f"{plan['rows']:,} twins, {plan['connections']} connections, {plan['rounds']} rounds of {plan['seconds']} s."
    )
    if again := found.get("again"):
        yield f"Measured again, alone: {', '.join(f'{name} on {day}' for name, day in again.items())}."
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
    yield from ("", "## Requests per second", "", "Median of the rounds (least to most).", "")
    names = list(next(iter(found["throughput"].values())))
    yield from table(
        ("", *names),
        ((workload, *(_spread(apps[name]) for name in names)) for workload, apps in found["throughput"].items()),
    )
    yield from ("", "![Requests per second, relative to hand-written](results.svg)", "")
    yield from ("## Processor time of the server per request", "", "Microseconds, median of the rounds.", "")
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
    if "renewals" in found:
        yield from _renewals(found["renewals"])
    yield from ("", "## Import", "", "Milliseconds in a new interpreter: median (least to most).", "")
    yield from table(
        ("function_app", "fastapi, asyncpg, motor, jose, azure.functions"),
        [[_of(found["import_ms"][name]) for name in ("function_app", "libraries")]],
    )
    if "telemetry" in found:
        yield from ("", "## Telemetry", "", "Processor time per request in microseconds, median of the rounds.", "")
        yield from table(
            ("", "off", "on"),
            (
                (name, *(f"{figure(sides[side], 'cpu_us'):,.0f}" for side in ("off", "on")))
                for name, sides in found["telemetry"].items()
            ),
        )
    if starts := found.get("cold_start_ms"):
        yield from ("", "## Cold start through the driver", "", "Milliseconds: median (least to most).", "")
        yield from table(list(starts[0]), [[_of([start[phase] for start in starts]) for phase in starts[0]]])
    if "profile" in found:
        yield from _profile(found["profile"])
    if tried:
        yield from _tried(tried)


def _growth(growth: dict[str, Any]) -> Iterable[str]:
    sizes = list(growth["plans"])
    yield from ("", "## As the number of twins grows", "", "Milliseconds per request, p50, median of the rounds.", "")
    yield from table(
        ("twins", *(f"{int(rows):,}" for rows in sizes)),
        (
            (workload, *(f"{figure(outcomes[rows], 'p50_ms'):.2f}" for rows in sizes))
            for workload, outcomes in growth.items()
            if workload != "plans"
        ),
    )
    yield from ("", "![Milliseconds per request as the number of twins grows](growth.svg)")
    yield from ("", "Scans of the gate's statement in PostgreSQL:", "")
    yield from table(("twins", "plan"), ((f"{int(rows):,}", ", ".join(plan)) for rows, plan in growth["plans"].items()))


def _ledger(found: dict[str, Any]) -> Iterable[str]:
    ledger, consents = found["ledger"], found["consents"]
    yield from ("", "## The gate beside other things", "", "Milliseconds, median of the rounds.", "")
    rows = [
        ("idle", ledger["idle"]),
        (f"while a ledger of {ledger['events']:,} events is verified", ledger["verifying"]),
        *((f"of a twin with {int(count):,} consents", outcomes) for count, outcomes in consents.items()),
        *(
            (f"of a twin with {int(count):,} consents, all attributes", outcomes)
            for count, outcomes in found.get("consents, all attributes", {}).items()
        ),
        *(
            (f"beside one account's worst, {name}", outcomes)
            for name, outcomes in found.get("neighbour", {}).items()
            if name != "answers"
        ),
        *((f"by tokens of {name}", outcomes) for name, outcomes in found.get("tokens", {}).items()),
    ]
    yield from table(
        ("", "p50", "p99"),
        ((name, f"{figure(outcomes, 'p50_ms'):.2f}", f"{figure(outcomes, 'p99_ms'):.2f}") for name, outcomes in rows),
    )
    yield ""
    yield f"One verification takes {median(ledger['verification_s']):.1f} s."


def _renewals(renewed: dict[str, Any]) -> Iterable[str]:
    yield from (
        "",
        f"## A no after {renewed['renewals']:,} renewals",
        "",
        "Milliseconds of an answer, one at a time.",
        "",
    )
    yield from table(
        ("", "answers", "median", "slowest"),
        ((act, f"{len(times)}", f"{median(times):.1f}", f"{max(times):.1f}") for act, times in renewed["ms"].items()),
    )


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
        "Processor time per request after the change / before it, by `bench.tried`.",
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
    """Return a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _spread(outcomes: Sequence[dict[str, float]]) -> str:
    rates = [outcome["rate"] for outcome in outcomes]
    return f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def _of(values: Sequence[float]) -> str:
    digits = 1 if max(values) < 100 else 0
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def relative(found: dict[str, Any]) -> pictures.Ratio:
    """Return the requests per second where hand-written is 1, by workload and application."""
    return {
        workload: {name: ratio(outcomes, apps["hand-written"]) for name, outcomes in apps.items()}
        for workload, apps in found["throughput"].items()
    }


def write(folder: Path) -> str:
    """Write results.md and the pictures next to the results.json in `folder`, and return the page."""
    found = json.loads((folder / "results.json").read_text())
    text = page(found, json.loads(TRIED.read_text()))
    (folder / "results.md").write_text(text)
    for name, drawn in pictures.of(found, relative(found)).items():
        (folder / name).write_text(drawn)
    return text
