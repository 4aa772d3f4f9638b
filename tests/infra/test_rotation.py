"""Secrets are rotated as docs/OPERATIONS.md says, on a vault that is a folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.checks.deployment import FOLDER
from infra.new_secrets import receipt_key
from shared.settings import MIN_KEY_BYTES
from shared.signing import parse_keys

ROOT = FOLDER.parent
AZ = """
import pathlib, sys
folder, arguments = pathlib.Path({folder!r}), sys.argv[1:]
with (folder / "arguments").open("a") as seen:
    seen.write(" ".join(arguments) + "\\n")
name = arguments[arguments.index("--name") + 1]
if "show" in arguments:
    sys.stdout.write((folder / name).read_text() + "\\n")
else:
    (folder / name).write_text(pathlib.Path(arguments[arguments.index("--file") + 1]).read_text())
"""


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    az = tmp_path / "az"
    az.write_text(f"#!{sys.executable}\n{AZ.format(folder=str(tmp_path))}")
    az.chmod(0o755)
    (tmp_path / "receipt-key").write_text(receipt_key())
    return tmp_path


def _rotate(vault: Path) -> None:
    guide = (ROOT / "docs/OPERATIONS.md").read_text().partition("## Rotating keys")[2]
    commands = re.search(r"^```bash\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert commands
    environment = os.environ | {"PATH": f"{vault}:{os.environ['PATH']}", "VAULT": "twins"}
    text = commands[1].replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-c", text], cwd=ROOT, env=environment, check=False, capture_output=True)


def test_a_new_receipt_key_signs_and_every_older_one_is_still_published(vault: Path) -> None:
    (first,) = parse_keys(((vault / "receipt-key").read_text(),))
    _rotate(vault)
    _rotate(vault)
    newest, second, oldest = parse_keys(((vault / "receipt-key").read_text(),))
    assert "d" in newest
    assert oldest == {name: value for name, value in first.items() if name != "d"}
    assert "d" not in second
    assert len({key["x"] for key in (newest, second, oldest)}) == 3


def test_no_value_is_an_argument(vault: Path) -> None:
    _rotate(vault)
    secret = (vault / "jwt-secret").read_text()
    assert len(secret.encode()) >= MIN_KEY_BYTES
    arguments = (vault / "arguments").read_text()
    private = json.loads((vault / "receipt-key").read_text())[0]["d"]
    assert secret.strip() == secret
    assert secret not in arguments
    assert private not in arguments


@pytest.mark.parametrize("unreadable", ["", "not a key", '{"kty": "EC"}', "7"])
def test_what_is_no_receipt_key_is_left_as_it_is(vault: Path, unreadable: str) -> None:
    """A vault that did not answer, say: a new version without the older keys would unpublish them."""
    (vault / "receipt-key").write_text(unreadable)
    _rotate(vault)
    assert (vault / "receipt-key").read_text() == unreadable


@pytest.mark.parametrize("arguments", [[], ["azure", "more"], ["digest-key"]])
def test_what_it_makes_is_said(arguments: list[str]) -> None:
    command = [sys.executable, "infra/new_secrets.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "azure|compose|jwt-secret|receipt-key" in done.stderr
