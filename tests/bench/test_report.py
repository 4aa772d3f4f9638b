"""Figures reach the page through results.json and nothing else."""

import copy
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import profiler, report


def rounds(*rates: float) -> list[dict[str, float]]:
    return [{"rate": rate, "p50_ms": 1000 / rate, "p99_ms": 5000 / rate, "cpu_us": 1e6 / rate} for rate in rates]


@pytest.fixture
def found() -> dict[str, Any]:
    apps = {
        "ours": rounds(90, 100, 120),
        "hand-written": rounds(100, 100, 100),
        "usual": rounds(20, 20, 20),
        "limit": rounds(400, 400, 400),
        "function host": rounds(70, 70, 70),
        "stock adapter": rounds(50, 50, 50),
    }
    return {
        "made_at": "2026-01-01T00:00:00+00:00",
        "seconds": 12,
        "plan": {
            "name": "full",
            "rows": 1000,
            "connections": 16,
            "rounds": 3,
            "seconds": 1,
            "warm_up": 10_000,
            "sizes": [],
        },
        "machine": {"processor": "P", "processors": 2, "system": "S", "python": "3", "versions": {"fastapi": "1"}},
        "rss_mb": dict.fromkeys(apps, 80.0),
        "throughput": {"gate": apps, "get": apps, "create": apps},
        "ledger": {
            "events": 100_000,
            "idle": rounds(100, 100, 100),
            "verifying": rounds(40, 40, 40),
            "verification_s": [2],
        },
        "consents": {"1": rounds(100, 100, 100), "10000": rounds(90, 95, 99)},
        "import_ms": {"function_app": [390.0, 400.0, 500.0], "libraries": [300.0, 300.0, 310.0]},
    }


def by_name(found: dict[str, Any]) -> dict[str, report.Target]:
    return {target.name: target for target in report.targets(found)}


def test_a_target_is_the_median_of_the_rounds_ratios(found: dict[str, Any]) -> None:
    target = by_name(found)["gate: ours / hand-written"]
    assert target.found == 1.0
    assert target.met


def test_one_slow_round_of_both_sides_changes_nothing(found: dict[str, Any]) -> None:
    slow = copy.deepcopy(found)
    for name in ("ours", "hand-written"):
        slow["throughput"]["gate"][name][0]["rate"] /= 10
    assert by_name(slow)["gate: ours / hand-written"] == by_name(found)["gate: ours / hand-written"]


def test_a_target_missed_says_so(found: dict[str, Any]) -> None:
    target = by_name(found)["p99 of the gate while a ledger of 100,000 events is verified / idle"]
    assert target.found == pytest.approx(2.5)
    assert target.met is False
    assert "| ≤ 2.0 | 2.50 | **missed** |" in report.page(found)


def test_a_target_that_the_profile_leaves_out_is_not_called_met(found: dict[str, Any]) -> None:
    assert by_name(found)["time of the gate at 1,000,000 twins / at 1,000"].met is None
    assert "| ≤ 1.2 |  | not measured |" in report.page(found)


def test_growth_compares_the_deep_page_of_many_with_the_first_of_few(found: dict[str, Any]) -> None:
    one = {"1000": rounds(100, 100, 100), "1000000": rounds(50, 50, 50)}
    found["plan"]["sizes"] = [1000, 1_000_000]
    found["growth"] = {
        "plans": {"1000": ["Index Scan twins_pkey"], "1000000": ["Index Scan twins_pkey"]},
        "gate": one,
        "list, first page": {"1000": rounds(100, 100, 100), "1000000": rounds(10, 10, 10)},
        "list, deep page": {"1000": rounds(10, 10, 10), "1000000": rounds(80, 80, 80)},
    }
    assert by_name(found)["time of the deep page at 1,000,000 twins / of the first at 1,000"].found == 1.25
    assert "| 1,000,000 | Index Scan twins_pkey |" in report.page(found)


def test_a_change_that_was_tried_is_a_line(found: dict[str, Any]) -> None:
    outcome = {"before": rounds(100, 100), "after": rounds(200, 200)}
    tried = [{"change": "Less", "kept": True, "workloads": {"gate": outcome, "get": outcome}}]
    assert "| Less | 0.50 | 0.50 | yes |" in report.page(found, tried)


def test_the_picture_has_a_bar_for_each_application_and_workload(found: dict[str, Any]) -> None:
    drawn = ET.fromstring(report.picture(found))
    bars = [element for element in drawn.iter("{http://www.w3.org/2000/svg}rect") if element.get("height") == "11"]
    assert len(bars) == 3 * 6
    widths = [float(bar.attrib["width"]) for bar in bars[:4]]
    assert widths[3] == pytest.approx(4 * widths[1], abs=0.2)
    assert widths[0] == widths[1]


def test_the_page_and_the_picture_are_what_the_figures_beside_them_say(tmp_path: Path) -> None:
    names = ("results.json", "results.md", "results.svg")
    there = [name for name in names if (report.FOLDER / name).exists()]
    assert there in ([], list(names)), "a page without its figures, or figures without their page"
    if there:
        shutil.copy(report.FOLDER / "results.json", tmp_path)
        report.write(tmp_path)
        for name in names:
            assert (tmp_path / name).read_text() == (report.FOLDER / name).read_text()


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ("run_forever (asyncio/base_events.py);app (fastapi/routing.py)", "Starlette and FastAPI"),
        ("app (fastapi/routing.py);decide (twins/consent/service.py)", "this application"),
        ("_log (shared/asgi.py);info (logging/__init__.py);encode (json/encoder.py)", "logging"),
        ("decide (twins/consent/service.py);__init__ (uuid.py)", "this application"),
        ("main (serve.py)", "other"),
    ],
)
def test_a_sample_belongs_to_the_innermost_package_that_is_not_the_standard_library(stack: str, part: str) -> None:
    assert profiler._part(stack.split(";")) == part
