"""CONTRIBUTING.md: where to look, and how to add a resource, whose steps are followed in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from devstack.local import ROOT
from tests.docs.markdown import code, rows, section, words

STEPS = section("CONTRIBUTING.md", "Adding a resource")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "proof")


def test_each_question_is_answered_by_a_file() -> None:
    answers = {question: words(files) for question, files in rows(section("CONTRIBUTING.md", "Where to look"))}

    assert len(answers) == 17
    for question, names in answers.items():
        assert any((ROOT / name).is_file() for name in names), question


def write(block: str, folder: Path) -> None:
    """Write a file that the text shows whole."""
    name, text = block.split("\n", 1)
    newest = ScriptDirectory(ROOT / "migrations").get_current_head()
    file = folder / name.removeprefix("# ")
    file.parent.mkdir(exist_ok=True)
    file.write_text(re.sub('^down_revision = "[^"]+"', f'down_revision = "{newest}"', text, flags=re.MULTILINE))


def change(block: str, folder: Path) -> None:
    """Add lines to a file, each behind the line that the text shows before it."""
    name, *lines = block.splitlines()
    file = folder / name.removeprefix(" # ")
    text = file.read_text()
    for before, line in pairwise(lines):
        if line.startswith("+"):
            assert text.count(f"\n{before[1:]}\n") == 1, before
            text = text.replace(f"\n{before[1:]}\n", f"\n{before[1:]}\n{line[1:]}\n")
    file.write_text(text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the resource in it."""
    folder = tmp_path_factory.mktemp("copy") / "repository"
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    for block in code(STEPS, "python"):
        write(block, folder)
    for block in code(STEPS, "diff"):
        change(block, folder)
    return folder


def run(folder: Path, *command: str) -> None:
    # FIGURES is for what the suite measures, and these tests are not of the suite.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FIGURES"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_resource_keeps_to_the_rules_of_the_repository(copy: Path) -> None:
    run(copy, "-m", "ruff", "check")
    run(copy, "-m", "ruff", "format", "--check")
    run(copy, str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


def test_the_resource_is_served_kept_from_other_owners_and_erased(copy: Path) -> None:
    layers = "tests/layers/test_layers.py"
    run(
        copy,
        *("-m", "pytest", "-p", "no:cacheprovider", "-k", "not functions"),
        *("tests/note", "tests/hostile/test_tenants.py", "tests/shared/http/test_openapi.py"),
        f"{layers}::test_sql_on_a_table_stands_in_its_room",
        f"{layers}::test_every_table_and_collection_has_a_room",
    )
