"""The README: its tour runs and shows what it says, and its table of settings is the settings."""

import json
import re
import shlex
import subprocess
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from devstack.local import ROOT
from tests.docs.markdown import code, rows, section, words
from tests.support.app import token
from tests.support.curl import CURL
from twins.settings import Settings

BASE_URL = "http://127.0.0.1:7071"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


def _tour() -> list[tuple[str, str]]:
    """Return each command of the tour with the output that is shown."""
    (console,) = code(section("README.md", "Five minutes"), "console")
    steps = []
    for step in console.removeprefix("$ ").split("\n$ "):
        lines = step.splitlines()
        ends = next(at for at, line in enumerate(lines, 1) if not line.endswith("\\"))
        steps.append(("\n".join(lines[:ends]), "\n".join(lines[ends:]).strip()))
    return steps


def test_the_tour_gives_the_output_that_it_shows(url: str) -> None:
    stand_ins = {BASE_URL: url, "$(make token SUB=alice)": token("alice")}
    said: list[str] = []
    before = f'curl() {{ {shlex.join(CURL)} "$@"; }}\n'
    for command, shown in _tour():
        for written, real in stand_ins.items():
            command = command.replace(written, real)  # noqa: PLW2901
        done = subprocess.run(
            ["bash", "-euc", before + command], capture_output=True, text=True, check=True, cwd=ROOT, timeout=30
        )
        if re.match(r"[A-Z]+=", command):
            before += command + "\n"
        output = done.stdout.strip()
        stand_ins |= dict(zip(_UUID.findall(shown), _UUID.findall(output), strict=True))
        assert _masked(output) == _masked(shown), command
        said.append(output)

    decisions = [json.loads(output) for output in said if '"decision"' in output]
    assert [decision["reason"] for decision in decisions] == ["granted", "assurance_too_low", "withdrawn"]


def _masked(text: str) -> str:
    return _TIME.sub("TIME", _UUID.sub("UUID", text))


def _documented() -> dict[str, str]:
    """Return each setting's default as the table has it."""
    documented: dict[str, str] = {}
    for names, defaults, _ in rows(section("README.md", "Configuration")):
        variables = words(names)
        values = [value.strip().strip("`") for value in defaults.split(",")]
        if len(values) == 1:
            values *= len(variables)
        documented |= dict(zip(variables, values, strict=True))
    return documented


def test_the_table_has_every_setting() -> None:
    assert set(_documented()) == {name.upper() for name in Settings.model_fields}


def test_the_table_has_the_defaults() -> None:
    for name, default in _documented().items():
        field = Settings.model_fields[name.lower()]
        if "required" in default:
            assert field.default in (PydanticUndefined, (), None), name
        else:
            assert default == _written(field.get_default(call_default_factory=True, validated_data={})), name


def _written(default: Any) -> str:
    match default:
        case None | ():
            return "none"
        case bool():
            return str(default).lower()
        case SecretStr():
            raise AssertionError("a secret has no default")
        case _:
            return str(default)
