"""`/api/v1/twins/{twin_id}/persona`: versions, prompt, and two stores that agree."""

import asyncio
import hashlib
import json
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import bson
import httpx
import jsonpatch
import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from devstack.local import ROOT
from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin
from tests.support.database import owner_of
from tests.support.stores import Stores
from twins.context import Context
from twins.persona.documents import MAX_BYTES

PERSONA: dict[str, Any] = {
    "summary": "Alex helps customers of a bicycle shop.",
    "greeting": "Hi, Alex here.\nWhat can I do?",
    "languages": ["en", "pt-BR"],
    "traits": ["patient", "precise"],
    "style": {"formality": "neutral", "verbosity": "short", "humor": None, "emoji": None},
    "boundaries": ["Never promises a delivery date."],
    "facts": [{"text": "The shop opens at nine.", "source": "https://example.com/hours"}],
    "examples": [{"user": "Is my bike ready?", "twin": "Let me look."}],
    "extensions": {"crm.id": 7},
}
EMPTY: dict[str, Any] = {
    "summary": None,
    "greeting": None,
    "languages": [],
    "traits": [],
    "style": {"formality": None, "verbosity": None, "humor": None, "emoji": None},
    "boundaries": [],
    "facts": [],
    "examples": [],
    "extensions": {},
}


@pytest.fixture
async def persona(alice: Client) -> str:
    """The path of a persona that has no version yet."""
    return f"{await make_twin(alice)}/persona"


async def put(client: Client, persona: str, content: Any, **headers: str) -> httpx.Response:
    return await client.put(persona, json=content, headers=headers)


def content_of(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name not in ("version", "created_at")}


# --- Before the first version --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "below", "json"),
    [
        ("GET", "", None),
        ("PATCH", "", {"summary": "x"}),
        ("GET", "/versions/1", None),
        ("POST", "/versions/1/restore", None),
        ("GET", "/diff?from=1&to=1", None),
        ("GET", "/prompt", None),
    ],
)
async def test_there_is_no_persona_before_the_first_put(
    alice: Client, persona: str, method: str, below: str, json: Any
) -> None:
    assert is_problem(await alice.request(method, persona + below, json=json), 404, "not-found")


async def test_the_history_is_empty_before_the_first_put(alice: Client, persona: str) -> None:
    assert (await alice.get(f"{persona}/versions")).json() == {"items": [], "next_cursor": None}


async def test_a_condition_on_a_persona_that_is_not_there_fails(alice: Client, persona: str) -> None:
    for tag in ("*", '"persona.0"', '"persona.1"'):
        assert is_problem(await put(alice, persona, {}, **{"If-Match": tag}), 412, "precondition-failed")
    assert is_problem(await alice.get(persona, headers={"If-None-Match": "*"}), 404, "not-found")


# --- Versions ------------------------------------------------------------------------------------


async def test_a_persona_comes_back_as_it_was_put(alice: Client, persona: str) -> None:
    made = await put(alice, persona, PERSONA)
    got = await alice.get(persona)

    assert made.status_code == got.status_code == 200
    assert content_of(got) == content_of(made) == PERSONA
    assert got.json() == made.json()
    assert got.json()["version"] == 1
    assert got.json()["created_at"].endswith("Z")
    assert got.headers["etag"] == made.headers["etag"]
    assert got.headers["content-location"] == f"{persona}/versions/1"
    assert (await alice.get(got.headers["content-location"])).json() == got.json()


async def test_everything_in_a_persona_is_optional(alice: Client, persona: str) -> None:
    assert content_of(await put(alice, persona, {})) == EMPTY


async def test_a_put_replaces_the_whole_and_keeps_what_was(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    second = await put(alice, persona, {"summary": "New."})

    assert second.json()["version"] == 2
    assert content_of(second) == EMPTY | {"summary": "New."}
    assert content_of(await alice.get(f"{persona}/versions/1")) == PERSONA


async def test_a_put_of_the_same_is_a_version_too(alice: Client, persona: str) -> None:
    assert [(await put(alice, persona, PERSONA)).json()["version"] for _ in range(2)] == [1, 2]


async def test_a_patch_merges_into_the_latest(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    change = {
        "greeting": None,
        "traits": ["calm"],
        "style": {"formality": "casual", "verbosity": None},
        "extensions": {"crm.id": None, "crm": {"team": "blue", "gone": None}},
    }
    patched = await alice.patch(persona, json=change, headers={"Content-Type": "application/merge-patch+json"})

    assert patched.json()["version"] == 2
    assert content_of(patched) == PERSONA | {
        "greeting": None,
        "traits": ["calm"],
        "style": EMPTY["style"] | {"formality": "casual"},
        "extensions": {"crm": {"team": "blue"}},
    }
    assert content_of(await alice.get(persona)) == content_of(patched)


async def test_null_in_a_patch_removes_a_member(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    patched = await alice.patch(persona, json=dict.fromkeys(PERSONA))

    assert content_of(patched) == EMPTY


async def test_a_condition_is_on_the_latest_version(alice: Client, persona: str) -> None:
    first = await put(alice, persona, {"summary": "One."})
    tag = first.headers["etag"]
    second = await put(alice, persona, {"summary": "Two."}, **{"If-Match": tag})
    assert second.status_code == 200

    for method in ("PUT", "PATCH"):
        for stale in (tag, f"W/{second.headers['etag']}"):
            refused = await alice.request(method, persona, json={"summary": "x"}, headers={"If-Match": stale})
            assert is_problem(refused, 412, "precondition-failed")
    assert (await alice.patch(persona, json={"greeting": "Hi."}, headers={"If-Match": "*"})).json()["version"] == 3
    latest = await alice.get(persona)
    unchanged = await alice.get(persona, headers={"If-None-Match": latest.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    # RFC 9110 §15.4.5: what a cache updates its copy with.
    for name in ("etag", "cache-control", "content-location"):
        assert unchanged.headers[name] == latest.headers[name]


async def test_the_first_version_can_be_asked_for_without_replacing_another(alice: Client, persona: str) -> None:
    first = await put(alice, persona, PERSONA, **{"If-None-Match": "*"})
    assert first.status_code == 200
    for method in ("PUT", "PATCH"):
        for excluded in ("*", first.headers["etag"], f'"x", W/{first.headers["etag"]}'):
            refused = await alice.request(method, persona, json={}, headers={"If-None-Match": excluded})
            assert is_problem(refused, 412, "precondition-failed")
    assert (await put(alice, persona, {}, **{"If-None-Match": '"x"'})).json()["version"] == 2


async def test_of_writers_of_the_first_version_exactly_one_wins(alice: Client, persona: str) -> None:
    answers = await asyncio.gather(*(put(alice, persona, {}, **{"If-None-Match": "*"}) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_lines_of_a_header_are_one_list(alice: Client, persona: str) -> None:
    tag = (await put(alice, persona, PERSONA)).headers["etag"]
    lines = [("If-Match", '"x"'), ("If-Match", tag)]
    assert (await alice.patch(persona, json={}, headers=lines)).json()["version"] == 2
    lines = [("Accept", "text/html"), ("Accept", "text/plain")]
    assert (await alice.get(f"{persona}/prompt", headers=lines)).headers["content-type"].startswith("text/plain")


async def test_versions_are_listed_newest_first_page_by_page(alice: Client, bob: Client, persona: str) -> None:
    for n in range(5):
        await put(alice, persona, {"summary": f"Number {n}."})
    pages: list[list[int]] = []
    cursor: str | None = None
    while pages == [] or cursor:
        page = await alice.get(f"{persona}/versions", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        pages.append([entry["version"] for entry in page.json()["items"]])
        cursor = page.json()["next_cursor"]
    assert pages == [[5, 4], [3, 2], [1]]

    other = f"{await make_twin(alice)}/persona/versions"
    cursor = (await alice.get(f"{persona}/versions", params={"limit": 2})).json()["next_cursor"]
    assert is_problem(await alice.get(other, params={"cursor": cursor}), 422, "validation-failed")
    assert is_problem(await bob.get(f"{persona}/versions"), 404, "not-found")


async def test_an_old_version_is_restored_as_a_new_one(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    await put(alice, persona, {"summary": "Worse."})
    restored = await alice.post(f"{persona}/versions/1/restore")

    assert restored.status_code == 201
    assert restored.json()["version"] == 3
    assert restored.headers["location"] == f"{persona}/versions/3"
    assert content_of(restored) == PERSONA
    latest = await alice.get(persona)
    assert latest.json() == restored.json()
    assert latest.headers["etag"] == restored.headers["etag"]
    assert is_problem(await alice.post(f"{persona}/versions/9/restore"), 404, "not-found")


async def test_a_restore_sent_again_shows_its_version_and_makes_no_other(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    url, key = f"{persona}/versions/1/restore", {"Idempotency-Key": "restore"}
    first = await alice.post(url, headers=key)
    await put(alice, persona, {"summary": "Newer."})
    # What was made can be read without consent, and so can the answer.
    await alice.patch(persona.removesuffix("/persona"), json={"consent": False})
    again = await alice.post(url, headers=key)

    assert (again.status_code, again.content) == (201, first.content)
    assert again.content == (await alice.get(first.headers["location"])).content
    for name in ("location", "etag"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["idempotency-replayed"] == "true"
    assert (await alice.get(persona)).json()["version"] == 3


async def test_of_restores_at_once_with_one_key_one_makes_a_version(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    url, key = f"{persona}/versions/1/restore", {"Idempotency-Key": "restore"}
    answers = await asyncio.gather(*(alice.post(url, headers=key) for _ in range(8)))

    made = [answer for answer in answers if answer.status_code == 201]
    assert {answer.json()["version"] for answer in made} == {2}
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert all(is_problem(answer, 409, "idempotency-key-in-use") for answer in answers if answer not in made)
    assert (await alice.get(persona)).json()["version"] == 2


async def test_a_restore_sent_again_never_shows_a_changed_document(
    alice: Client, persona: str, context: Context
) -> None:
    await put(alice, persona, PERSONA)
    url, key = f"{persona}/versions/1/restore", {"Idempotency-Key": "restore"}
    assert (await alice.post(url, headers=key)).status_code == 201
    await _change(context, persona, {"$set": {"persona.summary": "Tampered."}})

    assert is_problem(await alice.post(url, headers=key), 500, "internal-error")
    assert len((await alice.get(f"{persona}/versions")).json()["items"]) == 2


async def test_a_difference_turns_the_one_version_into_the_other(alice: Client, persona: str) -> None:
    versions = [
        PERSONA,
        {"summary": "New.", "traits": ["precise", "patient"], "extensions": {"a/b": {"~": [1, 2]}, "": None}},
        {"facts": [{"text": f"Fact {n}."} for n in range(5)], "extensions": {"a/b": {"~": [2, 1, 3]}}},
    ]
    whole = [content_of(await put(alice, persona, version)) for version in versions]

    for old in range(3):
        for new in range(3):
            patch = await alice.get(f"{persona}/diff", params={"from": old + 1, "to": new + 1})
            assert patch.headers["content-type"] == "application/json-patch+json"
            assert jsonpatch.apply_patch(whole[old], patch.json()) == whole[new]
            assert (patch.json() == []) == (old == new)
    for missing in ({"from": 1, "to": 4}, {"from": 4, "to": 1}):
        assert is_problem(await alice.get(f"{persona}/diff", params=missing), 404, "not-found")


async def test_a_persona_that_was_read_is_changed_and_sent(alice: Client, persona: str) -> None:
    assert is_problem(await put(alice, persona, {"version": 1}), 422, "validation-failed")  # there is none yet
    await put(alice, persona, PERSONA)
    first = (await alice.get(persona)).json()
    second = await put(alice, persona, first | {"summary": "Second."})

    assert (second.status_code, second.json()["version"]) == (200, 2)
    assert content_of(second) == PERSONA | {"summary": "Second."}
    assert content_of(await alice.get(persona)) == PERSONA | {"summary": "Second."}
    later = second.json()["created_at"]
    for read_only, pointers in (
        ({name: first[name] for name in ("version", "created_at")}, ["#/version", "#/created_at"]),
        ({"version": 3}, ["#/version"]),
        ({"version": 2, "created_at": "2026-01-01T00:00:00Z"}, ["#/created_at"]),
        ({"version": "2", "created_at": later}, ["#/version"]),
        ({"version": True}, ["#/version"]),
        ({"version": 2, "created_at": "yesterday"}, ["#/created_at"]),
        ({"version": 2, "updated_at": later}, ["#/updated_at"]),
    ):
        refused = await put(alice, persona, PERSONA | read_only)
        assert is_problem(refused, 422, "validation-failed"), read_only
        assert [error["pointer"] for error in refused.json()["errors"]] == pointers
    stale = await put(alice, persona, first, **{"If-Match": '"persona.1"'})
    assert is_problem(stale, 412, "precondition-failed")
    assert (await put(alice, persona, {"version": 2, "created_at": later})).json()["version"] == 3


async def test_of_writers_at_once_that_have_read_the_same_version_one_wins(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    read = (await alice.get(persona)).json()
    answers = await asyncio.gather(*(put(alice, persona, read | {"summary": f"Writer {n}."}) for n in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 7]
    assert (await alice.get(persona)).json()["version"] == 2


# --- Writers at once -----------------------------------------------------------------------------


async def test_writers_at_once_each_get_a_version_without_a_gap(alice: Client, persona: str) -> None:
    answers = await asyncio.gather(*(put(alice, persona, {"summary": f"Writer {n}."}) for n in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, 21))
    for answer in answers[:3]:
        again = await alice.get(f"{persona}/versions/{answer.json()['version']}")
        assert again.json() == answer.json()
    times = [answer.json()["created_at"] for answer in sorted(answers, key=lambda answer: answer.json()["version"])]
    assert times == sorted(times)


async def test_writers_at_once_to_whatever_is_there_all_win(alice: Client, persona: str) -> None:
    await put(alice, persona, {})
    answers = await asyncio.gather(*(put(alice, persona, {}, **{"If-Match": "*"}) for _ in range(8)))

    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 10))


async def test_patches_at_once_win_or_lose_and_no_won_change_is_lost(alice: Client, persona: str) -> None:
    await put(alice, persona, {"extensions": {}})
    answers = await asyncio.gather(*(alice.patch(persona, json={"extensions": {f"writer {n}": n}}) for n in range(12)))

    won = {f"writer {n}": n for n, answer in enumerate(answers) if answer.status_code == 200}
    assert won
    for answer in answers:
        assert answer.status_code == 200 or is_problem(answer, 409, "version-conflict")
    latest = (await alice.get(persona)).json()
    assert latest["extensions"] == won
    assert latest["version"] == 1 + len(won)


async def test_of_writers_with_the_same_entity_tag_exactly_one_wins(alice: Client, persona: str) -> None:
    tag = (await put(alice, persona, {})).headers["etag"]
    answers = await asyncio.gather(
        *(
            alice.request(method, persona, json={"summary": f"{method} {n}."}, headers={"If-Match": tag})
            for n in range(6)
            for method in ("PUT", "PATCH")
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 11
    assert (await alice.get(persona)).json()["version"] == 2


# --- Consent -------------------------------------------------------------------------------------


async def test_without_consent_a_persona_is_read_but_neither_written_nor_used(alice: Client) -> None:
    path = await make_twin(alice)
    persona = f"{path}/persona"
    for n in (1, 2):
        await put(alice, persona, PERSONA | {"summary": f"Number {n}."})
    await alice.patch(path, json={"consent": False})

    for method, below, body in (
        ("PUT", "", {}),
        ("PATCH", "", {"summary": "x"}),
        ("POST", "/versions/1/restore", None),
        ("GET", "/prompt", None),
    ):
        assert is_problem(await alice.request(method, persona + below, json=body), 403, "consent-required"), below
    for below in ("", "/versions", "/versions/1", "/diff?from=1&to=2"):
        assert (await alice.get(persona + below)).status_code == 200, below
    assert (await alice.get(persona)).json()["version"] == 2
    await alice.patch(path, json={"consent": True})
    assert (await alice.get(f"{persona}/prompt")).status_code == 200
    assert (await put(alice, persona, {})).json()["version"] == 3


async def test_a_twin_that_never_had_consent_gets_no_persona(alice: Client) -> None:
    path = await make_twin(alice, consent=False)

    assert is_problem(await put(alice, f"{path}/persona", PERSONA), 403, "consent-required")
    assert is_problem(await alice.get(f"{path}/persona"), 404, "not-found")


# --- Prompt --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/*;q=0.9, application/json;q=0.5", "text/plain; charset=utf-8"),
        ("text/html, application/json;q=0.1, text/plain;q=0.01", "application/json"),
    ],
)
async def test_the_prompt_is_what_the_client_likes_best(
    alice: Client, persona: str, accept: str | None, media_type: str
) -> None:
    await put(alice, persona, PERSONA)
    if accept is None:
        del alice.headers["accept"]
    prompt = await alice.get(f"{persona}/prompt", headers={} if accept is None else {"Accept": accept})

    assert prompt.status_code == 200
    assert prompt.headers["content-type"] == media_type
    assert prompt.headers["vary"] == "Accept"
    assert prompt.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("accept", ["text/html", "text/plain;q=0", "image/*", "*/*;q=0"])
async def test_a_prompt_that_nobody_could_accept_is_refused(alice: Client, persona: str, accept: str) -> None:
    await put(alice, persona, PERSONA)
    refused = await alice.get(f"{persona}/prompt", headers={"Accept": accept})

    assert is_problem(refused, 406, "not-acceptable")
    assert "text/plain" in refused.json()["detail"]


async def test_the_prompt_says_everything_that_the_persona_says(alice: Client, persona: str) -> None:
    await put(alice, persona, PERSONA)
    messages = (await alice.get(f"{persona}/prompt")).json()["messages"]
    text = (await alice.get(f"{persona}/prompt", headers={"Accept": "text/plain"})).text

    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"] == "Is my bike ready?"
    assert messages[2]["content"] == "Let me look."
    for said in (
        "Alex", "customer support", "professional", "bicycle shop", "patient", "pt-BR", "formality: neutral",
        "opens at nine", "https://example.com/hours", "Never promises", "Hi, Alex here.",
    ):  # fmt: skip
        assert said in messages[0]["content"], said
        assert said in text, said
    assert text.index("Is my bike ready?") < text.index("Let me look.")
    assert "crm.id" not in text
    assert (await alice.get(f"{persona}/prompt", headers={"Accept": "text/plain"})).text == text


async def test_the_prompt_of_an_empty_persona_is_of_the_twin_alone(alice: Client, persona: str) -> None:
    await put(alice, persona, {})
    (message,) = (await alice.get(f"{persona}/prompt")).json()["messages"]

    assert message["content"].startswith("You are Alex")
    assert ":\n" not in message["content"]


# --- What is not a persona -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"summary": ""}, "#/summary"),
        ({"summary": " \n"}, "#/summary"),
        ({"summary": "x" * 10_001}, "#/summary"),
        ({"summary": 7}, "#/summary"),
        ({"greeting": "a\u0000b"}, "#/greeting"),
        ({"greeting": "a\u202eb"}, "#/greeting"),
        ({"languages": ["english-"]}, "#/languages/0"),
        ({"languages": ["en"] * 51}, "#/languages"),
        ({"traits": ["ok", ""]}, "#/traits/1"),
        ({"traits": "patient"}, "#/traits"),
        ({"traits": {"0": "patient"}}, "#/traits"),
        ({"style": {"colour": "blue"}}, "#/style/colour"),
        ({"style": {"formality": 1}}, "#/style/formality"),
        ({"style": []}, "#/style"),
        ({"boundaries": ["a\nb"]}, "#/boundaries/0"),
        ({"facts": [{"source": "x"}]}, "#/facts/0/text"),
        ({"facts": [{"text": "x", "when": "now"}]}, "#/facts/0/when"),
        ({"facts": ["x"]}, "#/facts/0"),
        ({"examples": [{"user": "x"}]}, "#/examples/0/twin"),
        ({"extensions": []}, "#/extensions"),
        ({"extensions": "x"}, "#/extensions"),
        ({"version": 7}, "#/version"),
        ({"unknown": 1}, "#/unknown"),
    ],
)
async def test_what_is_no_persona_is_refused_by_put_and_patch_alike(
    alice: Client, persona: str, change: dict[str, Any], pointer: str
) -> None:
    await put(alice, persona, PERSONA)
    for method in ("PUT", "PATCH"):
        refused = await alice.request(method, persona, json=change)
        assert is_problem(refused, 422, "validation-failed")
        assert pointer in {error["pointer"] for error in refused.json()["errors"]}
    assert (await alice.get(persona)).json()["version"] == 1


@pytest.mark.parametrize(
    ("tag", "kept"),
    [
        ("EN", "en"),
        ("pt-br", "pt-BR"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("sr-LATN-rs", "sr-Latn-RS"),
        ("de-CH-1901", "de-CH-1901"),
        ("sl-rozaj-biske", "sl-rozaj-biske"),
        ("es-419", "es-419"),
        ("zh-yue", "zh-yue"),
        ("en-u-CA-gregory", "en-u-ca-gregory"),
        ("de-a-value-x-Private", "de-a-value-x-private"),
        ("ast", "ast"),
    ],
)
async def test_a_language_is_a_bcp_47_tag_in_its_own_case(alice: Client, persona: str, tag: str, kept: str) -> None:
    assert (await put(alice, persona, {"languages": [tag]})).json()["languages"] == [kept]


@pytest.mark.parametrize(
    "tag", ["", "e", "english language", "en_US", "en-", "-en", "en--US", "en-u", "123", "en-x", "é", "a" * 64, "en\n"]
)
async def test_what_is_no_bcp_47_tag_is_refused(alice: Client, persona: str, tag: str) -> None:
    refused = await put(alice, persona, {"languages": [tag]})

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["pointer"] == "#/languages/0"


async def test_texts_are_stripped_and_composed_but_extensions_are_kept_as_given(alice: Client, persona: str) -> None:
    made = await put(
        alice,
        persona,
        {"summary": " Zoe\u0308\r\nx\t", "traits": [" a "], "extensions": {" Zoe\u0308 ": " e\u0301 \r\n"}},
    )

    assert made.json()["summary"] == "Zo\xeb\nx"
    assert made.json()["traits"] == ["a"]
    assert (await alice.get(persona)).json()["extensions"] == {" Zoe\u0308 ": " e\u0301 \r\n"}


async def test_a_persona_is_bounded_by_its_size_as_json(alice: Client, persona: str) -> None:
    frame = len(json.dumps(EMPTY | {"extensions": {"x": ""}}, separators=(",", ":")))
    assert (await put(alice, persona, {"extensions": {"x": "y" * (MAX_BYTES - frame)}})).status_code == 200

    for text in ("y" * (MAX_BYTES - frame + 1), "é" * (MAX_BYTES // 2)):
        refused = await put(alice, persona, {"extensions": {"x": text}})
        assert is_problem(refused, 422, "validation-failed")
        assert "256 KiB" in refused.json()["errors"][0]["detail"]
    grown = await alice.patch(persona, json={"summary": "One more."})
    assert is_problem(grown, 422, "validation-failed")
    assert (await alice.get(persona)).json()["version"] == 1


names = st.one_of(
    st.sampled_from(["$ref", "$id", "$db", "$where", "a.b", ".", "$", "", "\0", "a\0b", "_id", "__proto__", "é"]),
    st.text(max_size=5),
)
extensions = st.dictionaries(
    names,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**200), 2**200)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(extensions)
@example(
    {
        "\0": [-0.0, 0.0, 5e-324, 1e300, 0.1, 1e16, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 2**900],
        "\U0001f6b2": "\U0001f6b2",
    }
)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
async def test_extensions_come_back_exactly(client_of: ClientOf, extensions: dict[str, Any]) -> None:
    alice = client_of("alice-of-the-extensions")
    twins = (await alice.get("/api/v1/twins")).json()["items"]
    persona = f"/api/v1/twins/{twins[0]['id']}/persona" if twins else f"{await make_twin(alice)}/persona"
    made = await put(alice, persona, {"extensions": extensions})
    assert made.status_code == 200, made.text

    # As text, since 1 == 1.0 == True.
    wanted = json.dumps(extensions)
    assert json.dumps(made.json()["extensions"]) == wanted
    assert json.dumps((await alice.get(persona)).json()["extensions"]) == wanted


# --- Between the stores --------------------------------------------------------------------------


def _twin_id(persona: str) -> UUID:
    return id_of(persona.removesuffix("/persona"))


async def test_a_document_that_no_version_refers_to_is_never_seen_and_never_in_the_way(
    alice: Client, persona: str, context: Context
) -> None:
    async def crash() -> None:
        """Leave what a crash between the two stores leaves."""
        async with context.mongo.collection("personas") as collection:
            await collection.insert_one(
                {
                    "_id": uuid4(),
                    "twin_id": _twin_id(persona),
                    "persona": {"summary": "Half written."},
                    "extensions": "{}",
                    "created_at": datetime.now(UTC),
                }
            )

    await crash()
    assert is_problem(await alice.get(persona), 404, "not-found")
    assert (await put(alice, persona, {"summary": "One."})).json()["version"] == 1
    await crash()
    assert (await alice.get(persona)).json()["summary"] == "One."
    assert (await alice.patch(persona, json={"greeting": "Hi."})).json()["version"] == 2
    assert len((await alice.get(f"{persona}/versions")).json()["items"]) == 2


async def test_a_refused_write_leaves_no_document(alice: Client, persona: str, context: Context) -> None:
    await put(alice, persona, {})
    answers = await asyncio.gather(*(alice.patch(persona, json={"summary": f"Writer {n}."}) for n in range(8)))
    versions = 1 + sum(answer.status_code == 200 for answer in answers)
    async with context.mongo.collection("personas") as collection:
        assert await collection.count_documents({"twin_id": _twin_id(persona)}) == versions


async def test_a_version_from_before_there_were_digests_or_under_other_limits_can_be_read(
    alice: Client, persona: str, context: Context, stores: Stores
) -> None:
    await put(alice, persona, PERSONA)
    async with owner_of(stores) as connection:
        await connection.execute("UPDATE persona_versions SET sha256 = NULL WHERE twin_id = $1", _twin_id(persona))
    await _change(context, persona, {"$set": {"persona.traits": ["x" * 1000]}})

    for below in ("", "/versions/1", "/prompt"):
        assert "x" * 1000 in (await alice.get(persona + below)).text
    assert (await alice.post(f"{persona}/versions/1/restore")).json()["traits"] == ["x" * 1000]
    # What was restored is bound.
    await _change(context, persona, {"$set": {"persona.traits": []}})
    assert (await alice.get(f"{persona}/versions/1")).json()["traits"] == []
    assert is_problem(await alice.get(persona), 500, "internal-error")


async def test_a_lost_document_is_our_fault_and_the_next_write_mends_it(
    alice: Client, persona: str, context: Context
) -> None:
    await put(alice, persona, PERSONA)
    async with context.mongo.collection("personas") as collection:
        await collection.delete_many({"twin_id": _twin_id(persona)})

    for method, below in (("GET", ""), ("GET", "/versions/1"), ("GET", "/prompt"), ("POST", "/versions/1/restore")):
        assert is_problem(await alice.request(method, persona + below), 500, "internal-error"), below
    assert (await alice.get(f"{persona}/versions")).status_code == 200
    assert (await put(alice, persona, PERSONA)).json()["version"] == 2
    assert content_of(await alice.get(persona)) == PERSONA


# --- A version is bound to its document ----------------------------------------------------------


async def _change(context: Context, persona: str, change: Any) -> None:
    """Change the documents of a persona past the application."""
    async with context.mongo.collection("personas") as collection:
        await collection.update_many({"twin_id": _twin_id(persona)}, change, bypass_document_validation=True)


async def _document(context: Context, **wanted: Any) -> dict[str, Any]:
    async with context.mongo.collection("personas") as collection:
        found: dict[str, Any] | None = await collection.find_one(wanted)
    assert found is not None
    return found


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_version_has_the_digest_of_what_its_document_says(
    alice: Client, persona: str, context: Context, stores: Stores
) -> None:
    await put(alice, persona, PERSONA | {"summary": "Zoë\n\U0001f6b2", "extensions": {"b": -0.0, "a": "\0é"}})
    async with owner_of(stores) as connection:
        row = await connection.fetchrow("SELECT * FROM persona_versions WHERE twin_id = $1", _twin_id(persona))
    document = await _document(context, _id=row["document_id"])

    assert document["extensions"] == '{"b":-0.0,"a":"\\u0000é"}'
    content = {name: document[name] for name in ("persona", "extensions")}
    assert row["sha256"] == hashlib.sha256(bson.encode(content)).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"persona.summary": "Tampered."}},
        {"$set": {"persona.traits.1": "Tampered."}},
        {"$set": {"persona.facts.0.source": None}},
        {"$push": {"persona.boundaries": "Tampered."}},
        {"$set": {"persona.tampered": 1}},
        {"$unset": {"persona.style": 1}},
        {"$unset": {"persona": 1}},
        {"$set": {"persona": ["Tampered."]}},
        {"$set": {"persona.greeting": DatetimeMS(2**62)}},
        {"$set": {"persona.greeting": PERSONA["greeting"].encode()}},
        {"$set": {"persona.greeting": UUID(int=7)}},
        {"$set": {"extensions": '{"crm.id":7.0}'}},
        {"$set": {"extensions": '{"crm.id": 7}'}},
        {"$set": {"extensions": "Tampered."}},
        {"$set": {"extensions": {"crm.id": 7}}},
        {"$unset": {"extensions": 1}},
    ],
    ids=str,
)
async def test_a_changed_document_is_never_shown_and_the_next_write_repairs_the_persona(
    alice: Client, persona: str, context: Context, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    tag = (await put(alice, persona, PERSONA)).headers["etag"]
    await _change(context, persona, change)

    for method, below, sent in (
        ("GET", "", {}),
        ("GET", "", {"headers": {"If-None-Match": tag}}),
        ("GET", "/versions/1", {}),
        ("GET", "/prompt", {}),
        ("GET", "/diff?from=1&to=1", {}),
        ("PATCH", "", {"json": {"traits": []}}),
        ("POST", "/versions/1/restore", {}),
    ):
        caplog.clear()
        answer = await alice.request(method, persona + below, **sent)
        assert is_problem(answer, 500, "internal-error"), below
        assert "etag" not in answer.headers
        assert "amper" not in answer.text
        assert "bicycle" not in answer.text
        (error,) = _errors(caplog)
        said = vars(error)
        assert (said["message"], said["version"], said["twin_id"]) == (
            "Persona document has changed", 1, str(_twin_id(persona)),
        )  # fmt: skip
        assert error.exc_info is None
        assert "amper" not in repr(said)
    async with context.mongo.collection("personas") as collection:  # other tests read every document
        await collection.delete_many({"twin_id": _twin_id(persona)})
    assert [entry["version"] for entry in (await alice.get(f"{persona}/versions")).json()["items"]] == [1]
    assert (await put(alice, persona, PERSONA)).headers["etag"] != tag
    assert content_of(await alice.get(persona)) == PERSONA


async def test_documents_that_have_changed_places_are_not_shown(
    alice: Client, persona: str, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    for summary in ("One.", "Two.", "Three."):
        await put(alice, persona, PERSONA | {"summary": summary})
    wanted = [{"twin_id": _twin_id(persona), "persona.summary": summary} for summary in ("One.", "Two.")]
    one, two = [await _document(context, **each) for each in wanted]
    async with context.mongo.collection("personas") as collection:
        for document, other in ((one, two), (two, one)):
            await collection.replace_one({"_id": document["_id"]}, other | {"_id": document["_id"]})

    for version in (1, 2):
        caplog.clear()
        assert is_problem(await alice.get(f"{persona}/versions/{version}"), 500, "internal-error")
        assert [vars(error)["version"] for error in _errors(caplog)] == [version]
    assert is_problem(await alice.get(f"{persona}/diff?from=3&to=1"), 500, "internal-error")
    assert (await alice.get(persona)).json()["summary"] == "Three."


def test_the_alert_knows_the_line_of_a_changed_document() -> None:
    assert '"Persona document has changed"' in (ROOT / "infra/modules/alerts.bicep").read_text()
