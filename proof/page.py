"""docs/PROOF.md and the figures in README.md: made of what the runs have measured, and of nothing else."""

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import FOLDER as BENCH
from bench.report import Target, figure, ratio, table, targets
from devstack.local import ROOT

FIGURES = Path(__file__).parent / "figures"
PAGE = ROOT / "docs" / "PROOF.md"
README = ROOT / "README.md"
_QUOTED = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)

CAUSES = {
    "gate: function host / stock adapter": (
        "What is saved is the adapter's own work and a log line of the worker; the rest is the same code, and much of "
        "it the driver that stands in for the host. In Azure each line also crosses gRPC to the host; the driver has "
        "no such process, so that saving does not show."
    ),
    "create: ours / hand-written": (
        "Much of the time is the log: that a creation was initiated, that it was done, and the request, where the "
        "hand-written peer logs nothing (bench/results.md, where the time goes)."
    ),
    "get: ours / hand-written": (
        "The two are equal but for what the machine did meanwhile: the rounds' own ratios lie on both sides of 1 "
        "(`throughput.get` in bench/results.json). Ours also validates the row as a model, and knows entity tags."
    ),
}
"""Why a target is missed, by its name."""
UNKNOWN = "Why is not known yet."
"""Where a run on another machine misses another one; such a page is not committed."""


def tests(junit: Path, coverage: Path) -> dict[str, Any]:
    """Return what the reports of a test run say in numbers."""
    suites = ET.parse(junit).getroot()  # noqa: S314 - our own file
    return {
        "passed": sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites),
        "coverage": round(json.loads(coverage.read_text())["totals"]["percent_covered"], 1),
    }


class _Figures:
    """What the full runs have measured; of a step that was never run there is nothing."""

    def __init__(self) -> None:
        steps = {file.stem: json.loads(file.read_text()) for file in sorted(FIGURES.glob("*.json"))}
        self.dates = {step: found["made_at"] for step, found in steps.items()}
        self._figures = {step: found["figures"] for step, found in steps.items()}
        file = BENCH / "results.json"
        self.bench: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        if self.bench:
            self.dates["bench"] = self.bench["made_at"].partition("T")[0]

    def of(self, step: str, name: str) -> Any:
        """Return figures of a step, None where there are none."""
        return self._figures.get(step, {}).get(name)

    @property
    def targets(self) -> list[Target]:
        return targets(self.bench) if self.bench else []


type Claim = tuple[str, str, str]
"""What is claimed, what was found, and the step that found it."""


def _claims(found: _Figures) -> Iterator[Claim]:
    yield from _performance(found)
    yield from _tests(found)
    yield from _hostile(found)
    if modules := found.of("mutation", "modules"):
        mutants, survived = (sum(module[name] for module in modules.values()) for name in ("mutants", "survived"))
        claim = "Tests notice a change of the logic (reported, no gate)"
        yield claim, f"{mutants - survived:,} of {mutants:,} mutants found: {1 - survived / mutants:.0%}", "mutation"
    if windows := found.of("browser", "browser"):
        claim = "From the page of the docs a twin is made, decided on, withdrawn and refused, without an error"
        yield claim, "windows of " + " and ".join(f"{window['width']} px" for window in windows), "browser"
    for tool in ("bandit", "squawk", "pip-audit"):
        if "audit" in found.dates:
            result = found.of("audit", tool)
            figures = (
                f"{result['findings']} findings, each reasoned" if result else "not measured: its data is out of reach"
            )
            yield f"{tool} finds nothing without a reason", figures, "audit"


def _performance(found: _Figures) -> Iterator[Claim]:
    for target in found.targets:
        if target.found is not None:
            yield f"{target.name} {target.bound}", f"{target.found:.2f}", "bench"


def _tests(found: _Figures) -> Iterator[Claim]:
    if passed := found.of("tests", "passed"):
        figures = f"{passed:,} tests, {found.of('tests', 'coverage')} % of statements and branches"
        yield "All tests pass, on real stores, through both fronts", figures, "tests"
    for one in found.of("tests", "schemathesis") or ():
        claim = f"Every answer is as the OpenAPI document says ({one['front']}: {one['phases']})"
        yield claim, f"{one['cases']:,} cases, no failure", "tests"
    for step in ("tests", "fuzz", "resilience"):
        for one in found.of(step, "log-search") or ():
            claim = f"No secret, token, account or name is in the logs of `make {_command(step)}`, at any level"
            yield claim, f"{one['needles']:,} values in {one['lines']:,} different lines: {one['found']} found", step


def _hostile(found: _Figures) -> Iterator[Claim]:
    for one in found.of("fuzz", "fuzz") or ():
        claim = f"No bytes whatever make the service fail ({one['front']})"
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
        "For the reader who doubts. Written by `make proof`, from what its runs have measured.",
        "",
    )
    yield from ("## Targets missed", "")
    missed = [target for target in found.targets if target.met is False]
    for target in missed:
        sign = "at most" if target.at_most else "at least"
        yield f"- **{target.name}**: {target.found:.2f}, where {sign} {target.wanted} was wanted. {_cause(target)}"
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
    yield from ("", "What `make bench` measures, and on which machine: [bench/results.md](../bench/results.md).")
    if scenarios := found.of("resilience", "resilience"):
        yield from (
            "",
            "## Faults",
            "",
            "Each ends with an audit: what was acknowledged is stored, ledgers verify, nothing is left open.",
            "",
        )
        yield from table(
            ("fault", "requests", "answered", "slowest", "works again after"),
            (_scenario(scenario) for scenario in scenarios),
        )
    if rows := found.of("fuzz", "exhaustion"):
        yield from ("", "## One client that uses up what it can", "")
        names = list(dict.fromkeys(name for row in rows for name in row))
        yield from table(
            [name.replace("_", " ") for name in names], ([_cell(row.get(name)) for name in names] for row in rows)
        )
    if modules := found.of("mutation", "modules"):
        yield from ("", "## Mutants", "", "Those that no test finds, and why: `proof/figures/mutation.json`.", "")
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
    """Yield what the README says of all this."""
    bench = found.bench
    if bench:
        gate = bench["throughput"]["gate"]
        usual, by_hand = (ratio(gate["ours"], gate[peer]) for peer in ("usual", "hand-written"))
        yield (
            f"- On one core the gate answers {figure(gate['ours']):,.0f} times a second, {usual:.1f} times as often as "
            f"the usual FastAPI and SQLAlchemy app, {by_hand:.2f} times as often as one written by hand with the "
            "same SQL."
        )
    if scenarios := found.of("resilience", "resilience"):
        yield f"- {len(scenarios)} kinds of fault on real processes lose no acknowledged write."
    if rows := found.of("fuzz", "fuzz"):
        yield f"- {sum(row['inputs'] for row in rows):,} hostile requests, as bytes, make none fail."
    if passed := found.of("tests", "passed"):
        yield f"- {passed:,} tests on real stores, {found.of('tests', 'coverage')} % of statements and branches."


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
    """Exit with a message where either is not what `write` would write, or no cause is given for a missed target."""
    page = _page()
    if PAGE.read_text(encoding="utf-8") != page or README.read_text(encoding="utf-8") != _readme():
        sys.exit("docs/PROOF.md or README.md is not current: run python -m proof --page")
    if UNKNOWN in page:
        sys.exit("docs/PROOF.md has a missed target without a cause: say why in proof/page.py")
