"""What docs/API_STANDARDS.md promises to clients is what the code does."""

import re

import pytest
from pydantic import BaseModel

from shared import auth
from shared.http import arguments, idempotency, middleware, strict_json
from shared.http.problems import Problem, problem_types
from tests.docs.markdown import read, rows, section, words
from tests.support.app import Client, ClientOf, is_problem, make_twin
from tests.support.consent import NOTICE
from twins.app import create_app
from twins.consent.acts import MOST_NAMED
from twins.consent.models import ConsentCreate, Notice, Withdrawal
from twins.decision.models import PURPOSE, Decision, Questions
from twins.parties import Subject
from twins.persona import documents as persona
from twins.refusal.models import Refusal, RefusalCreate
from twins.twin.models import TwinCreate

NAME = "docs/API_STANDARDS.md"
VOICE = {"purposes": ["voice"], "notice": NOTICE}


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

    assert limits["Request body"] == (
        "persona 1 MiB, consent and renewal 256 KiB, questions to the gate 64 KiB,"
        f" any other {arguments.MAX_BODY // 1024} KiB;"
        f" {strict_json.MAX_DEPTH} levels, {strict_json.MAX_SEPARATORS:,} commas and brackets"
    )
    assert limits["Persona"] == f"{persona.MAX_BYTES // 1024} KiB as compact JSON"
    assert limits["Token"] == f"{auth.MAX_TOKEN:,} characters; `sub` {auth.MAX_SUB}"
    assert limits["Idempotency-Key"].endswith(f"kept for {idempotency.LIFE_HOURS} hours")
    assert limits["twin_name"] == f"{_bound(TwinCreate, 'twin_name')} characters"
    assert limits["use_case`, `tone"] == f"{_bound(TwinCreate, 'use_case')} characters"
    in_consent, in_refusal = _bound(ConsentCreate, "purposes"), _bound(RefusalCreate, "purposes")
    assert limits["Purpose"] == f"`{PURPOSE[1:-1]}`, {in_consent} in a consent, {in_refusal} in a refusal"
    assert limits["principals"] == f"{_bound(TwinCreate, 'principals')} accounts"
    assert limits["Accounts that a twin has named"].startswith(f"{MOST_NAMED:,}, ")
    issuer = auth.MAX_ACCOUNT - auth.MAX_SUB - 1
    assert limits["Account"] == f"issuer {issuer} characters, subject {auth.MAX_SUB}"
    assert (_bound(Subject, "issuer"), _bound(Subject, "subject")) == (issuer, auth.MAX_SUB)
    assert limits["Notice"] == f"text {_bound(Notice, 'text'):,} characters, version {_bound(Notice, 'version')}"
    assert limits["Questions to the gate at once"] == str(_bound(Questions, "items"))


def _bound(model: type[BaseModel], name: str) -> int:
    """Return how long a member may be."""
    member = model.model_json_schema()["properties"][name]
    bounds = [schema for schema in (member, *member.get("anyOf", ())) if schema.keys() & {"maxLength", "maxItems"}]
    return int(bounds[0].get("maxLength") or bounds[0]["maxItems"])


def test_the_security_headers_are_those_that_are_sent() -> None:
    shown = dict(re.findall(r"^([A-Za-z-]+): (.+)$", section(NAME, "Security headers"), re.MULTILINE))

    assert {name.lower(): value for name, value in shown.items()} == {
        name.decode(): value.decode() for name, value in middleware._SECURITY_HEADERS.items()
    }


def test_the_reasons_are_those_of_the_gate() -> None:
    listed = [word for cells in rows(section(NAME, "Consent")) for word in words(cells[0])]

    assert listed == list(Decision.model_fields["reason"].annotation.__args__)  # type: ignore[union-attr]


def test_the_sides_of_a_no_are_those_of_the_code() -> None:
    text = section(NAME, "A no")

    assert [words(cells[0])[0] for cells in rows(text)] == list(Withdrawal.model_fields["by"].annotation.__args__)  # type: ignore[union-attr]
    for side in Refusal.model_fields["by"].annotation.__args__:  # type: ignore[union-attr]
        assert f"`{side}`" in text


async def test_the_answers_to_a_no_are_those_of_the_document(alice: Client, client_of: ClientOf) -> None:
    person = client_of("standards-person")
    path = await make_twin(alice, principals=["standards-person"])
    first, wider = [await person.post(f"{path}/refusals", json={"purposes": [name]}) for name in ("voice", "face")]
    assert (first.status_code, wider.status_code) == (201, 200)

    again = await alice.patch(path, json={"consent": True})  # what GET shows: does nothing
    refused = [await alice.post(f"{path}/consents", json=VOICE | {"purposes": [name]}) for name in ("voice", "other")]
    opened = [await person.delete(f"{path}/refusals/{first.json()['id']}") for _ in range(2)]
    still = await alice.post(f"{path}/consents", json=VOICE)

    assert again.status_code == 200
    assert all(is_problem(answer, 409, "person-must-consent") for answer in (*refused, still))
    assert [answer.status_code for answer in opened] == [204, 204]
    assert (await person.get(f"{path}/refusals")).json()["items"] == []


async def test_principals_of_the_same_patch_do_not_make_the_owner_a_person(alice: Client, client_of: ClientOf) -> None:
    mine = (await alice.get("/api/v1/me")).json()["sub"]
    path = await make_twin(alice, consent=False, principals=["standards-person"])
    await client_of("standards-person").post(f"{path}/refusals", json={"purposes": ["voice"]})

    at_once = await alice.patch(path, json={"principals": [mine], "consent": True})
    assert is_problem(at_once, 409, "person-must-consent")
    assert (await alice.patch(path, json={"principals": [mine]})).status_code == 200
    assert (await alice.patch(path, json={"consent": True})).json()["consent"] is True


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
    assert "Only a success uses up its key" in read(NAME)
