"""Figures reach the page through results.json and nothing else."""

import copy
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import pictures, profiler, report


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
        "tokens": {"HS256": rounds(100, 100, 100), "RS256": rounds(98, 100, 99)},
        "consents": {"1": rounds(100, 100, 100), "10000": rounds(90, 95, 99)},
        "renewals": {"renewals": 100_000, "ms": {"withdraw": [4.0, 6.0, 5.0], "DELETE": [9.0, 61.0]}},
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


def test_a_run_from_before_there_were_issuers_has_no_target_of_theirs(found: dict[str, Any]) -> None:
    name = "gate: tokens of RS256 / of HS256, once verified"
    assert by_name(found)[name].met
    before = {key: value for key, value in found.items() if key != "tokens"}
    assert name not in by_name(before)
    assert "by tokens of" not in report.page(before)


def test_a_target_missed_says_so(found: dict[str, Any]) -> None:
    target = by_name(found)["p99 of the gate while a ledger of 100,000 events is verified / idle"]
    assert target.found == pytest.approx(2.5)
    assert target.met is False
    assert "| ≤ 2.0 | 2.50 | **missed** |" in report.page(found)


def test_a_target_that_the_profile_leaves_out_is_not_called_met(found: dict[str, Any]) -> None:
    assert by_name(found)["time of the gate at 1,000,000 twins / at 1,000"].met is None
    assert "| ≤ 1.2 |  | not measured |" in report.page(found)


def test_a_no_on_a_long_history_is_judged_by_its_slowest_answer(found: dict[str, Any]) -> None:
    withdraw, delete = (
        by_name(found)[f"slowest {act} on a consent of 100,000 renewals, ms"] for act in ("withdraw", "DELETE")
    )
    assert (withdraw.found, withdraw.met) == (6.0, True)
    assert (delete.found, delete.met) == (61.0, False)
    assert "| withdraw | 3 | 5.0 | 6.0 |" in report.page(found)


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


def test_the_gate_with_all_attributes_is_compared_with_itself(found: dict[str, Any]) -> None:
    few, many = rounds(100, 100, 100), rounds(80, 80, 80)
    found["plan"]["sizes"] = [1000, 1_000_000]
    found["consents, all attributes"] = {"1": few, "10000": many}
    found["growth"] = {
        "plans": {},
        **{name: {"1000": few, "1000000": few} for name in ("gate", "list, first page", "list, deep page")},
        "gate, all attributes": {"1000": few, "1000000": many},
    }
    for target in ("at 1,000,000 twins / at 1,000", "of a twin with 10,000 consents / with 1"):
        assert by_name(found)[f"time of the gate with all attributes {target}"].found == 1.25
    assert "of a twin with 10,000 consents, all attributes" in report.page(found)


def test_what_was_measured_again_has_its_day(found: dict[str, Any]) -> None:
    assert "Measured again" not in report.page(found)
    assert "Measured again, alone: ledger on 2026-01-02." in report.page(found | {"again": {"ledger": "2026-01-02"}})


def test_a_change_that_was_tried_is_a_line(found: dict[str, Any]) -> None:
    outcome = {"before": rounds(100, 100), "after": rounds(200, 200)}
    tried = [{"change": "Less", "kept": True, "workloads": {"gate": outcome, "get": outcome}}]
    assert "| Less | 0.50 | 0.50 | yes |" in report.page(found, tried)


SVG = "{http://www.w3.org/2000/svg}"


def widths(drawn: str) -> list[float]:
    return [float(bar.attrib["width"]) for bar in ET.fromstring(drawn).iter(f"{SVG}rect") if bar.get("height") == "11"]


def test_the_picture_has_a_bar_for_each_application_and_workload(found: dict[str, Any]) -> None:
    bars = widths(pictures.of(found, report.relative(found))["results.svg"])
    assert len(bars) == 3 * 6
    assert bars[3] == pytest.approx(4 * bars[1], abs=0.2)
    assert bars[0] == bars[1]


def test_the_short_picture_compares_two_applications_with_the_hand_written_one(found: dict[str, Any]) -> None:
    drawn = pictures.of(found, report.relative(found))["summary.svg"]
    bars = widths(drawn)
    assert len(bars) == 3 * 2
    assert bars[0] == pytest.approx(5 * bars[1], abs=0.2)
    assert "hand-written = 1" in drawn


def test_a_line_rises_with_the_time_and_lies_flat_without(found: dict[str, Any]) -> None:
    found["growth"] = {
        "plans": {},
        "gate": {"1000": rounds(1000), "1000000": rounds(1000)},
        "get": {"1000": rounds(1000), "1000000": rounds(500)},
    }
    drawn = ET.fromstring(pictures.of(found, report.relative(found))["growth.svg"])
    gate, get = (line.attrib["points"].split() for line in drawn.iter(f"{SVG}polyline"))
    assert gate[0].split(",")[1] == gate[1].split(",")[1]
    assert float(get[0].split(",")[1]) > float(get[1].split(",")[1]) == 48.0  # the top: y grows downwards


def test_the_page_and_the_pictures_are_what_the_figures_beside_them_say(tmp_path: Path) -> None:
    names = ("results.json", "results.md", "results.svg", "summary.svg", "growth.svg")
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
        ("app (fastapi/routing.py);decide (twins/decision/service.py)", "this application"),
        ("_log (shared/http/middleware.py);info (logging/__init__.py);encode (json/encoder.py)", "logging"),
        ("decide (twins/decision/service.py);__init__ (uuid.py)", "this application"),
        ("main (serve.py)", "other"),
    ],
)
def test_a_sample_belongs_to_the_innermost_package_that_is_not_the_standard_library(stack: str, part: str) -> None:
    assert profiler._part(stack.split(";")) == part
