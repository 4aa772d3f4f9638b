"""`python -m migrations`: what it reads, and what it says when that is not enough."""

import sys
from typing import Any

import pytest

from migrations import __main__ as command
from migrations import mongo, postgres

VARIABLES = ("MIGRATIONS_POSTGRES_DSN", "POSTGRES_DSN", "MONGODB_URI", "MONGODB_DATABASE")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is done to the stores."""
    made: list[tuple[Any, ...]] = []
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(postgres, "migrate", lambda *arguments: made.append(arguments))
    monkeypatch.setattr(mongo, "ensure", lambda *arguments: made.append(arguments))
    return made


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> None:
    monkeypatch.setattr(sys, "argv", ["migrations", *arguments])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command.main()


def test_both_stores_are_brought_up_by_the_owner(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "upgrade", MIGRATIONS_POSTGRES_DSN="owner", POSTGRES_DSN="serving", MONGODB_URI="mongo")

    assert calls == [("owner", "upgrade", "head"), ("mongo", "twins")]


def test_one_role_will_do_and_the_database_has_a_name(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "upgrade", "x", POSTGRES_DSN="one", MONGODB_URI="mongo", MONGODB_DATABASE="other")

    assert calls == [("one", "upgrade", "x"), ("mongo", "other")]


def test_a_downgrade_is_of_postgresql_alone(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "downgrade", "base", POSTGRES_DSN="one")

    assert calls == [("one", "downgrade", "base")]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["upgrade"], {}, "POSTGRES_DSN"),
        (["upgrade"], {"POSTGRES_DSN": "", "MONGODB_URI": "x"}, "POSTGRES_DSN"),
        (["upgrade"], {"POSTGRES_DSN": "x"}, "MONGODB_URI"),
        (["grant", "role"], {}, "POSTGRES_DSN"),
    ],
)
def test_a_missing_setting_is_named_before_anything_is_done(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        run(monkeypatch, *arguments, **environment)

    assert calls == []


@pytest.mark.parametrize("arguments", [[], ["sideways"], ["downgrade"], ["grant"]])
def test_a_command_that_is_none_is_refused(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, *arguments, POSTGRES_DSN="x", MONGODB_URI="x")

    assert refused.value.code == 2
    assert calls == []
    assert "usage" in capsys.readouterr().err
