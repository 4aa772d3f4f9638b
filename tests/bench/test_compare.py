"""Before against after: what is compared, and when it fails."""

import subprocess
from pathlib import Path

import pytest

from bench import compare, stack
from bench.compare import Outcomes
from bench.stack import OURS


def rounds(*cpu_us: float) -> list[dict[str, float]]:
    return [{"cpu_us": spent} for spent in cpu_us]


def outcomes(**after: tuple[float, ...]) -> Outcomes:
    return {name: {"before": rounds(100, 100, 100), "after": rounds(*spent)} for name, spent in after.items()}


def test_a_workload_is_judged_by_the_median_of_its_rounds() -> None:
    table, holds = compare.verdict(outcomes(gate=(100, 102, 300), get=(80, 90, 101)), 0.97)

    assert holds
    assert "| gate | 100 | 102 | 0.980 | 0.333 to 1.000 |  |" in table


def test_one_workload_below_the_floor_fails_all() -> None:
    table, holds = compare.verdict(outcomes(gate=(100, 104, 105), get=(80, 90, 101)), 0.97)

    assert not holds
    assert [line for line in table.splitlines() if line.endswith("| below 0.97 |")] == [
        "| gate | 100 | 104 | 0.962 | 0.952 to 1.000 | below 0.97 |"
    ]


def test_what_slowed_a_round_down_slowed_both_sides_down() -> None:
    sides = {"before": rounds(100, 400, 100), "after": rounds(100, 400, 100)}

    assert compare.ratios(sides) == [1, 1, 1]


def test_a_revision_is_copied_once_whole_and_has_an_interpreter_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[object] = []
    git = subprocess.run

    def run(command: list[str], **options: object) -> object:
        if command[0] == "make":
            installed.append(options["cwd"])
            return None
        return git(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(compare, "FOLDER", tmp_path / "bench")
    monkeypatch.setattr(subprocess, "run", run)
    trees = [compare.checkout("HEAD") for _ in range(2)]

    assert trees[0] == trees[1]
    assert installed == [trees[0].folder] * 2
    assert (trees[0].folder / "twins" / "app.py").exists()
    assert trees[0].python.startswith(str(trees[0].folder))
    assert list((tmp_path / "bench").iterdir()) == [trees[0].folder]


def test_a_revision_that_is_none_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "FOLDER", tmp_path)
    for none in ("no-such-revision", "--help"):
        with pytest.raises(SystemExit, match="git rev-parse failed"):
            compare.checkout(none)


def test_without_a_revision_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASE", raising=False)
    with pytest.raises(SystemExit, match="BASE="):
        compare.main()


def test_each_side_has_a_database_of_its_own() -> None:
    with stack.running() as stores:
        found = [stores.database(1_000, OURS, name) for name in ("before", "after")]

    assert len({database.owner_dsn for database in found}) == 2
    assert len({database.environment["MONGODB_DATABASE"] for database in found}) == 2
