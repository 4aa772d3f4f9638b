"""docs/PROOF.md and the figures in README.md, made from the figures of the runs and from nothing else."""

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import FOLDER as BENCH
from bench.report import Target, figure, ratio, table, targets
from bench.workloads import LISTS, WRITTEN
from devstack.local import ROOT

FIGURES = Path(__file__).parent / "figures"
PAGE = ROOT / "docs" / "PROOF.md"
README = ROOT / "README.md"
_QUOTED = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)

CAUSES = {
    "gate: function host / stock adapter": (
        "Ours saves the adapter's own work and one log line of the worker. The rest is the same code, much of it the "
        "driver that stands in for the host. The driver has no gRPC, and under the worker itself each line of a log "
        "crosses it, which costs about 100 µs. There the ratio is 1.58 (measured under the worker by hand, 2026-11-25)."
    ),
    **dict.fromkeys(
        (f"{name}: ours / hand-written{peer}" for name in WRITTEN for peer in ("", " that logs nothing")),
        "Both send PostgreSQL the same statements. Ours reads the body as I-JSON and checks each member, by Python "
        "functions for texts; the peer looks whether three texts are blank, and takes a persona as it is. Ours bounds "
        "the account's requests and compares entity tags. A fifth of a creation is its log, three lines "
        "in the run of 2026-11-25 and two since.",
    ),
    **dict.fromkeys(
        (f"{name}: ours / hand-written" for name in LISTS),
        "Ours makes a model of each row and the JSON from these, reads each parameter, and seals the place of the next "
        "page for this account and these filters; the peer copies columns. This application's own code and Pydantic "
        "are two fifths of a list's time (where the time goes, bench/results.md).",
    ),
    "persona get: ours / hand-written": (
        "Ours compares the persona with its digest and makes a model of each part; the peer sends the document as it "
        "is. This application's own code and Pydantic are a third of the time (where the time goes, bench/results.md)."
    ),
    "gate: processor time with telemetry / without": (
        "Each request has an id of its trace, by the sampler, and one line of its log crosses the SDK. Nothing else of "
        "a request that is not sampled is prepared."
    ),
    "p99 of the gate beside one account's worst / idle": (
        "What is heavy for the interpreter has a process of its own, one account's heavy requests follow each other, "
        "and its others wait for each other. What is left is what is refused, some thirty a second, and the kernel: "
        "with ticks of 4 ms, some twenty times a second one of the second process, the stores, both loads and the "
        "kernel's own threads keeps one of two processors for a tick (by hand, 2026-11-30)."
    ),
    "get: ours / hand-written": (
        "The two are equal within the noise of the machine: the ratios of single rounds lie on both sides of 1 "
        "(`throughput.get` in bench/results.json). Ours also validates the row as a model, and handles entity tags."
    ),
}
"""Why a target is missed, by the name of the target."""
UNKNOWN = "The cause is not known yet."
"""For a target that only a run on another machine misses; such a page is not committed."""


def tests(junit: Path, coverage: Path) -> dict[str, Any]:
    """Return the number of passed tests and the coverage in percent, from the reports of a test run."""
    suites = ET.parse(junit).getroot()  # noqa: S314 - our own file
    return {
        "passed": sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites),
        "coverage": round(json.loads(coverage.read_text())["totals"]["percent_covered"], 1),
    }


class _Figures:
    """The figures of the full runs; a step that never ran has none."""

    def __init__(self) -> None:
        steps = {file.stem: json.loads(file.read_text()) for file in sorted(FIGURES.glob("*.json"))}
        self.dates = {step: found["made_at"] for step, found in steps.items()}
        self._figures = {step: found["figures"] for step, found in steps.items()}
        file = BENCH / "results.json"
        self.bench: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        if self.bench:
            days = {self.bench["made_at"].partition("T")[0], *self.bench.get("again", {}).values()}
            self.dates["bench"] = " to ".join(sorted({min(days), max(days)}))

    def of(self, step: str, name: str) -> Any:
        """Return the figures of a step, or None if it has none."""
        return self._figures.get(step, {}).get(name)

    @property
    def targets(self) -> list[Target]:
        return targets(self.bench) if self.bench else []


type Claim = tuple[str, str, str]
"""The claim, the finding, and the step that found it."""


def _claims(found: _Figures) -> Iterator[Claim]:
    yield from _performance(found)
    yield from _tests(found)
    yield from _hostile(found)
    if modules := found.of("mutation", "modules"):
        mutants, survived = (sum(module[name] for module in modules.values()) for name in ("mutants", "survived"))
        claim = "The tests notice changes of the logic (reported, not required)"
        yield claim, f"{mutants - survived:,} of {mutants:,} mutants found: {1 - survived / mutants:.0%}", "mutation"
    if windows := found.of("browser", "browser"):
        claim = "The documentation page creates a twin, gets a yes, withdraws consent and gets a no, without an error"
        yield claim, "windows of " + " and ".join(f"{window['width']} px" for window in windows), "browser"
    for tool in ("bandit", "squawk", "pip-audit"):
        if "audit" in found.dates:
            figures = "no finding" if found.of("audit", tool) else "not measured: its database could not be reached"
            yield f"Every finding of {tool} is fixed or has a reason", figures, "audit"


def _performance(found: _Figures) -> Iterator[Claim]:
    for target in found.targets:
        if target.found is not None:
            yield f"{target.name} {target.bound}", f"{target.found:.2f}", "bench"


def _tests(found: _Figures) -> Iterator[Claim]:
    if passed := found.of("tests", "passed"):
        figures = f"{passed:,} tests, {found.of('tests', 'coverage')} % of statements and branches"
        yield "All tests pass, on real stores, through both servers", figures, "tests"
    for one in found.of("tests", "schemathesis") or ():
        claim = f"Every answer matches the OpenAPI document ({one['front']}: {one['phases']})"
        yield claim, f"{one['cases']:,} cases, no failure", "tests"
    for step in ("tests", "fuzz", "resilience"):
        for one in found.of(step, "log-search") or ():
            claim = f"No secret, token, account or name is in the logs of `make {_command(step)}`, at any level"
            yield claim, f"{one['needles']:,} values in {one['lines']:,} different lines: {one['found']} found", step


def _hostile(found: _Figures) -> Iterator[Claim]:
    for one in found.of("fuzz", "fuzz") or ():
        claim = f"No sequence of bytes makes the service fail ({one['front']})"
        yield claim, f"{one['inputs']:,} requests, no 5xx, no traceback", "fuzz"
    if scenarios := found.of("resilience", "resilience"):
        requests = sum(scenario["requests"] for scenario in scenarios)
        failed = sum(scenario["outcomes"].get("500", 0) for scenario in scenarios)
        claim = "No fault of a store, the network or a process loses an acknowledged write"
        yield claim, f"{len(scenarios)} scenarios, {requests:,} requests, {failed} answered 500", "resilience"


def _lines(found: _Figures) -> Iterator[str]:
    yield from (
        "# Proof",
        "",
        "`make proof` writes this page from the figures of its runs. Missed targets come first.",
        "",
    )
    yield from ("## Targets missed", "")
    missed = [target for target in found.targets if target.met is False]
    for target in missed:
        sign = "at most" if target.at_most else "at least"
        yield f"- **{target.name}**: {target.found:.2f}; the target is {sign} {target.wanted}. {_cause(target)}"
    if not missed:
        yield "None."
    yield from ("", "## Claims", "")
    yield from table(
        ("claim", "found", "command", "date"),
        (
            (claim, figures, f"`make {_command(step)}`", found.dates.get(step, ""))
            for claim, figures, step in _claims(found)
        ),
    )
    if found.bench:
        yield from ("", "![Requests per second, where hand-written is 1](../bench/results.svg)")
        yield from ("", "![Milliseconds per request, as the number of twins grows](../bench/growth.svg)")
    yield from ("", "[bench/results.md](../bench/results.md) has all figures of `make bench`, and its machine.")
    if scenarios := found.of("resilience", "resilience"):
        yield from (
            "",
            "## Faults",
            "",
            "Each scenario ends with an audit: every acknowledged write is stored, ledgers verify, no work is left.",
            "",
        )
        yield from table(
            ("fault", "requests", "answered", "slowest", "works again after"),
            (_scenario(scenario) for scenario in scenarios),
        )
    if rows := found.of("fuzz", "exhaustion"):
        yield from ("", "## One client that exhausts what it can", "")
        names = list(dict.fromkeys(name for row in rows for name in row))
        yield from table(
            [name.replace("_", " ") for name in names], ([_cell(row.get(name)) for name in names] for row in rows)
        )
    if modules := found.of("mutation", "modules"):
        yield from (
            "",
            "## Mutants",
            "",
            "`proof/figures/mutation.json` has the mutants that no test found, with the reasons.",
            "",
        )
        counted = ("mutants", "killed", "timeout", "survived")
        rows = ((f"`{module}`", *(str(counts[name]) for name in counted)) for module, counts in modules.items())
        yield from table(("module", *counted), rows)


def _cause(target: Target) -> str:
    return CAUSES.get(target.name, UNKNOWN)


def _command(step: str) -> str:
    return {"tests": "test"}.get(step, step)


def _scenario(scenario: dict[str, Any]) -> tuple[str, ...]:
    outcomes = ", ".join(f"{name}: {count:,}" for name, count in scenario["outcomes"].items())
    recovered = ", ".join(f"{what} {seconds} s" for what, seconds in scenario.get("recovered_s", {}).items())
    return scenario["scenario"], f"{scenario['requests']:,}", outcomes, f"{scenario['slowest_s']} s", recovered


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _quote(found: _Figures) -> Iterator[str]:
    """Yield the lines of the README's key figures."""
    bench = found.bench
    if bench:
        gate = bench["throughput"]["gate"]
        usual, by_hand = (ratio(gate["ours"], gate[peer]) for peer in ("usual", "hand-written"))
        yield (
            f"- On one core the gate answers {figure(gate['ours']):,.0f} requests per second: {usual:.1f} times the "
            f"rate of the usual FastAPI and SQLAlchemy app, {by_hand:.2f} times that of a hand-written one with the "
            "same SQL."
        )
    if scenarios := found.of("resilience", "resilience"):
        yield f"- {len(scenarios)} kinds of fault on real processes lose no acknowledged write."
    if rows := found.of("fuzz", "fuzz"):
        yield f"- {sum(row['inputs'] for row in rows):,} hostile requests, sent as raw bytes, cause no 5xx."
    if passed := found.of("tests", "passed"):
        yield f"- {passed:,} tests on real stores cover {found.of('tests', 'coverage')} % of statements and branches."


def _page() -> str:
    return "\n".join([*_lines(_Figures()), ""])


def _readme() -> str:
    quoted = "".join(f"{line}\n" for line in _quote(_Figures()))
    return _QUOTED.sub(lambda _: quoted, README.read_text(encoding="utf-8"))


def write() -> None:
    """Write the page, and the figures in the README."""
    PAGE.write_text(_page(), encoding="utf-8")
    README.write_text(_readme(), encoding="utf-8")


def check() -> None:
    """Exit with a message if either differs from what `write` would write, or a missed target has no cause."""
    page = _page()
    if PAGE.read_text(encoding="utf-8") != page or README.read_text(encoding="utf-8") != _readme():
        sys.exit("docs/PROOF.md or README.md is not current: run python -m proof --page")
    if UNKNOWN in page:
        sys.exit("docs/PROOF.md has a missed target without a cause: say why in proof/page.py")
