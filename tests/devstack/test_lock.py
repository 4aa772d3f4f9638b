"""Judged by what the installed packages require, so these little projects use a few of those."""

from importlib.metadata import version
from pathlib import Path

import pytest

from devstack.lock import stale

JSONPATCH = ("jsonpatch", "jsonpointer")
MAKO = ("mako", "markupsafe")
UVICORN = ("uvicorn", "click", "h11")
EXECNET = ("execnet",)
DEV = JSONPATCH + MAKO + UVICORN


def project(
    root: Path, runtime: str, pinned: tuple[str, ...], pinned_dev: tuple[str, ...], for_tests: tuple[str, ...] = EXECNET
) -> Path:
    (root / "pyproject.toml").write_text(
        f"""
        [project]
        dependencies = ["{runtime}"]
        [project.optional-dependencies]
        migrate = ["mako"]
        [dependency-groups]
        dev = ["uvicorn", "not-for-this-platform; sys_platform == 'other'"]
        test = ["execnet"]
        """
    )
    files = {
        "requirements.txt": pinned,
        "requirements-dev.txt": pinned_dev,
        "requirements-test.txt": pinned_dev + for_tests,
    }
    for file, packages in files.items():
        pins = [f"{package}=={version(package)}\n    # via something\n" for package in packages]
        (root / file).write_text("".join(["# made by a tool\n", *pins, "other==1 ; sys_platform == 'other'\n"]))
    return root


def test_current_files_are_not_stale(tmp_path: Path) -> None:
    assert stale(project(tmp_path, "jsonpatch>=1", JSONPATCH, DEV)) == []


def test_the_projects_own_files_are_current() -> None:
    assert stale() == []


def test_a_requirement_without_a_pin_is_found(tmp_path: Path) -> None:
    assert stale(project(tmp_path, "jsonpatch", (), DEV)) == [
        "requirements.txt: jsonpatch is missing, which pyproject.toml requires"
    ]


def test_a_requirement_of_a_requirement_without_a_pin_is_found(tmp_path: Path) -> None:
    assert stale(project(tmp_path, "jsonpatch", JSONPATCH[:1], DEV)) == [
        "requirements.txt: jsonpointer is missing, which jsonpatch requires"
    ]


@pytest.mark.parametrize("missing", [MAKO[0], UVICORN[0]])
def test_the_extra_and_the_group_are_looked_at(tmp_path: Path, missing: str) -> None:
    pinned_dev = tuple(name for name in DEV if name != missing)
    problems = stale(project(tmp_path, "jsonpatch", JSONPATCH, pinned_dev))
    assert f"requirements-dev.txt: {missing} is missing, which pyproject.toml requires" in problems


def test_the_group_of_the_tests_is_looked_at_in_its_own_file_alone(tmp_path: Path) -> None:
    assert stale(project(tmp_path, "jsonpatch", JSONPATCH, DEV, ())) == [
        "requirements-test.txt: execnet is missing, which pyproject.toml requires"
    ]


def test_a_pin_outside_the_range_is_found(tmp_path: Path) -> None:
    problems = stale(project(tmp_path, "jsonpatch<1", JSONPATCH, DEV))
    assert len(problems) == 3
    assert all(problem.endswith("is not what pyproject.toml requires: <1") for problem in problems)


def test_a_pin_that_nothing_requires_is_found(tmp_path: Path) -> None:
    assert stale(project(tmp_path, "jsonpatch", JSONPATCH + MAKO, DEV)) == [
        f"requirements.txt: {name} is pinned, and nothing requires it" for name in MAKO
    ]


def test_what_an_extra_requires_is_required_only_with_the_extra(tmp_path: Path) -> None:
    with_extra = stale(project(tmp_path, "python-jose[cryptography]", ("python-jose",), ()))
    assert "requirements.txt: cryptography is missing, which python-jose requires" in with_extra
    without = stale(project(tmp_path, "python-jose", ("python-jose",), ()))
    assert "requirements.txt: cryptography is missing, which python-jose requires" not in without


def test_a_pin_that_is_not_what_is_installed_cannot_be_judged(tmp_path: Path) -> None:
    root = project(tmp_path, "jsonpatch", JSONPATCH, DEV)
    (root / "requirements.txt").write_text("jsonpatch==0.1\n")
    with pytest.raises(SystemExit, match=r"jsonpatch==0\.1 is pinned"):
        stale(root)
