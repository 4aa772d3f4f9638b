"""What docs/API_STANDARDS.md promises to clients is what the code does."""

import re

import pytest
from pydantic import BaseModel

from shared import api, asgi, auth, idempotency, strict_json
from shared.errors import Problem, problem_types
from tests.conftest import Client, make_twin
from tests.docs.markdown import read, rows, section, words
from twins.app import create_app
from twins.consent.models import PURPOSE, ConsentCreate, Decision, Notice, Questions
from twins.persona import service as persona
from twins.twin.models import TwinCreate

NAME = "docs/API_STANDARDS.md"


def _table(title: str) -> dict[str, str]:
    return {cells[0].strip("`"): cells[1] for cells in rows(section(NAME, title))}


def _problem_types() -> dict[str, type[Problem]]:
    """Return the product's kinds; a process of several test files has kinds of theirs too."""
    return {slug: kind for slug, kind in problem_types().items() if not kind.__module__.startswith("tests")}


def test_the_errors_are_the_problem_types(environment: dict[str, str]) -> None:
    create_app()  # every kind has been defined

    assert _table("Errors") == {slug: str(kind.status) for slug, kind in _problem_types().items()}


def test_the_statuses_are_those_of_the_problem_types() -> None:
    listed = {int(status) for cell in _table("Answers") for status in re.findall(r"\d{3}", cell)}

    assert {status for status in listed if status >= 400} == {kind.status for kind in _problem_types().values()}


def test_the_limits_are_those_of_the_code() -> None:
    limits = _table("Limits")

    assert limits["Request body"] == f"{api.MAX_BODY // 2**20} MiB, {strict_json.MAX_DEPTH} levels"
    assert limits["Persona"] == f"{persona.MAX_BYTES // 1024} KiB as compact JSON"
    assert limits["Token"] == f"{auth.MAX_TOKEN:,} characters; `sub` {auth.MAX_SUB}"
    assert limits["Idempotency-Key"].endswith(f"kept for {idempotency.LIFE_HOURS} hours")
    assert limits["twin_name"] == f"{_bound(TwinCreate, 'twin_name')} characters"
    assert limits["use_case`, `tone"] == f"{_bound(TwinCreate, 'use_case')} characters"
    assert limits["Purpose"] == f"`{PURPOSE[1:-1]}`, {_bound(ConsentCreate, 'purposes')} in a consent"
    assert limits["Notice"] == f"text {_bound(Notice, 'text'):,} characters, version {_bound(Notice, 'version')}"
    assert limits["Questions to the gate at once"] == str(_bound(Questions, "items"))


def _bound(model: type[BaseModel], name: str) -> int:
    """Return how long a member may be."""
    member = model.model_json_schema()["properties"][name]
    return int(member.get("maxLength") or member["maxItems"])


def test_the_security_headers_are_those_that_are_sent() -> None:
    shown = dict(re.findall(r"^([A-Za-z-]+): (.+)$", section(NAME, "Security headers"), re.MULTILINE))

    assert {name.lower(): value for name, value in shown.items()} == {
        name.decode(): value.decode() for name, value in asgi._SECURITY_HEADERS.items()
    }


def test_the_reasons_are_those_of_the_gate() -> None:
    listed = [word for cells in rows(section(NAME, "Consent")) for word in words(cells[0])]

    assert listed == list(Decision.model_fields["reason"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize("times", [1, 2])
async def test_put_persona_answers_200_also_the_first_time(alice: Client, times: int) -> None:
    path = await make_twin(alice)

    for version in range(1, times + 1):
        answer = await alice.put(f"{path}/persona", json={})
        assert answer.status_code == 200
        assert answer.headers["content-location"] == f"{path}/persona/versions/{version}"
    assert "answers 200 also the first time" in read(NAME)


async def test_a_failed_request_does_not_use_up_its_key(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    headers = {"Idempotency-Key": "the-same"}
    notice = {"version": "1", "language": "en", "text": "Yes."}
    late = {"purposes": ["voice"], "notice": notice, "expires_at": "2000-01-01T00:00:00Z"}

    failed = await alice.post(f"{path}/consents", json=late, headers=headers)
    made = await alice.post(f"{path}/consents", json=late | {"expires_at": None}, headers=headers)

    assert (failed.status_code, made.status_code) == (422, 201)
    assert "Only answers of success are kept" in read(NAME)
