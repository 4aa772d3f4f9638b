"""Consents: given, renewed, withdrawn, expired; who may do it; what is refused."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import TypeAdapter, ValidationError

from shared.http.fields import Moment
from tests.support.app import ALEX, MISSING, Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import (
    HOUR,
    MEMBERS,
    NOTICE,
    after,
    decide,
    grant,
    ledger,
    location,
    pass_time,
    reason,
    renew,
    transitions,
    verify,
    withdraw,
)
from tests.support.database import superuser
from tests.support.erasure import finish
from tests.support.stores import Stores
from twins.context import Context


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# --- Given ---------------------------------------------------------------------------------------


async def test_a_consent_is_kept_with_the_exact_notice_and_terms(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    terms = {
        "purposes": ["voice", "conversation"],
        "notice": NOTICE | {"text": "Ich stimme zu: Zoë spricht für mich.\nZeile 2", "language": "de-CH"},
        "principal": "zoë@example.com",
        "method": "web-form",
        "not_before": "2020-01-01T00:00:00+02:00",
        "expires_at": "2099-12-31T23:59:59.123456Z",
    }
    made = await alice.post(f"{path}/consents", json=terms)

    assert made.status_code == 201
    consent = made.json()
    assert made.headers["location"] == location(consent)
    assert (await alice.get(made.headers["location"])).json() == consent
    assert consent == terms | {
        "id": consent["id"],
        "twin_id": str(id_of(path)),
        "state": "given",
        "purposes": ["conversation", "voice"],
        "notice": terms["notice"]  # type: ignore[operator]
        | {"sha256": hashlib.sha256("Ich stimme zu: Zoë spricht für mich.\nZeile 2".encode()).hexdigest()},
        "not_before": "2019-12-31T22:00:00Z",
        "given_at": consent["given_at"],
        "withdrawn": [],
        "withdrawn_at": None,
        "withdrawn_by": None,
        "taken": [],
        "renews": None,
        "replaced_by": None,
        "assurance": "recorded",
        "source": None,
        **dict.fromkeys(MEMBERS),
    }


async def test_without_a_principal_the_caller_is_it(client_of: ClientOf) -> None:
    client = client_of("dora")
    consent = await grant(client, await make_twin(client, consent=False))

    assert (consent["principal"], consent["method"]) == ("dora", "api")
    assert (consent["not_before"], consent["expires_at"]) == (None, None)


async def test_a_twin_made_with_consent_has_the_record_and_one_without_has_none(client_of: ClientOf) -> None:
    client = client_of("emil")
    path, silent = await make_twin(client), await make_twin(client, consent=False)
    (consent,) = (await client.get(f"{path}/consents")).json()["items"]

    assert (consent["purposes"], consent["method"], consent["principal"]) == (["general"], "api", "emil")
    assert consent["state"] == "given"
    assert consent["notice"]["text"]
    assert await transitions(client, path) == ["given"]
    assert (await client.get(f"{silent}/consents")).json() == {"items": [], "next_cursor": None}
    assert await ledger(client, silent) == []
    assert (await verify(client, silent))["valid"] is True


def test_a_moment_is_kept_in_utc_and_another_text_is_told_what_one_looks_like() -> None:
    moments: TypeAdapter[datetime] = TypeAdapter(Moment)
    kept = moments.validate_python("2030-01-01t00:30:00.5+01:00")
    with pytest.raises(ValidationError) as refused:
        moments.validate_python("tomorrow")

    assert kept == datetime(2029, 12, 31, 23, 30, 0, 500_000, tzinfo=UTC)
    assert kept.tzinfo is UTC
    assert refused.value.errors()[0]["msg"] == (
        "Value error, must be an RFC 3339 time with an offset, to the microsecond at most, such as 2027-01-31T12:00:00Z"
    )


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"purposes": []}, "#/purposes"),
        ({"purposes": ["a"] * 2}, "#/purposes"),
        ({"purposes": [f"p{n}" for n in range(21)]}, "#/purposes"),
        ({"purposes": ["Voice"]}, "#/purposes/0"),
        ({"purposes": ["voice", ""]}, "#/purposes/1"),
        ({"purposes": ["a" * 64]}, "#/purposes/0"),
        ({"purposes": ["voice\n"]}, "#/purposes/0"),
        ({"purposes": "voice"}, "#/purposes"),
        ({"purposes": None}, "#/purposes"),
        ({"notice": None}, "#/notice"),
        ({"notice": NOTICE | {"text": " "}}, "#/notice/text"),
        ({"notice": NOTICE | {"text": "x" * 20_001}}, "#/notice/text"),
        ({"notice": NOTICE | {"language": "not a language"}}, "#/notice/language"),
        ({"notice": NOTICE | {"sha256": "00"}}, "#/notice/sha256"),
        ({"notice": {"version": "1", "language": "en"}}, "#/notice/text"),
        ({"principal": ""}, "#/principal"),
        ({"principal": "x" * 256}, "#/principal"),
        ({"principal": "a\nb"}, "#/principal"),
        ({"principal": 7}, "#/principal"),
        ({"method": "Web Form"}, "#/method"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "not_before": "2030-01-01T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "not_before": "2031-01-01T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "#/expires_at"),
        ({"expires_at": "2030-01-01"}, "#/expires_at"),
        ({"expires_at": "2030-02-30T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "#/expires_at"),
        ({"expires_at": 1_900_000_000}, "#/expires_at"),
        ({"not_before": "0001-01-01T00:00:00+23:59"}, "#/not_before"),
        ({"state": "given"}, "#/state"),
        ({"given_at": "2020-01-01T00:00:00Z"}, "#/given_at"),
    ],
)
async def test_a_consent_that_does_not_fit_is_not_recorded(alice: Client, change: dict[str, Any], pointer: str) -> None:
    path = await make_twin(alice, consent=False)
    body = {"purposes": ["voice"], "notice": NOTICE} | change
    refused = await alice.post(f"{path}/consents", json=body)

    assert is_problem(refused, 422, "validation-failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert (await alice.get(f"{path}/consents")).json()["items"] == []
    assert await ledger(alice, path) == []


@pytest.mark.parametrize("not_before", [None, after(HOUR)], ids=["live", "future"])
async def test_an_overlapping_grant_is_refused_and_named_and_leaves_nothing(
    alice: Client, not_before: str | None
) -> None:
    path = await make_twin(alice, consent=False)
    first = await grant(alice, path, "voice", "training", not_before=not_before)
    before = (await alice.get(path)).headers["etag"]
    refused = await alice.post(f"{path}/consents", json={"purposes": ["new", "voice"], "notice": NOTICE})

    assert is_problem(refused, 409, "consent-active")
    assert (refused.json()["consent_id"], refused.json()["state"]) == (first["id"], "given")
    assert await reason(alice, path, "new") == "no_consent"
    assert await transitions(alice, path) == ["given"]
    assert (await alice.get(path)).headers["etag"] == before
    await grant(alice, path, "new")


async def test_consents_are_listed_newest_first_over_pages(alice: Client, bob: Client) -> None:
    path, other = await make_twin(alice, consent=False), await make_twin(alice, consent=False)
    made = [(await grant(alice, path, f"p{n}"))["id"] for n in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await alice.get(f"{path}/consents", params={"limit": "2"} | cursor)).json()
        seen += [consent["id"] for consent in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert seen == made[::-1]
    for wrong in (f"{other}/consents", f"{path}/ledger"):
        assert is_problem(await alice.get(wrong, params=cursor), 422, "validation-failed")
    assert is_problem(await bob.get(f"{path}/consents", params=cursor), 422, "validation-failed")


# --- Withdrawn -----------------------------------------------------------------------------------


async def test_a_withdrawal_takes_effect_once_and_again_changes_nothing(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", "training")
    first = await withdraw(alice, consent)

    at = first["withdrawn_at"]
    ended = {"state": "withdrawn", "withdrawn_at": at, "withdrawn_by": "principal"}
    each = [{"purpose": purpose, "at": at, "by": "principal"} for purpose in consent["purposes"]]
    assert first == consent | ended | {"withdrawn": each}
    assert moment(first["withdrawn_at"]) >= moment(consent["given_at"])
    assert [await reason(alice, path, purpose) for purpose in consent["purposes"]] == ["withdrawn"] * 2
    assert await withdraw(alice, consent) == first
    assert await transitions(alice, path) == ["given", "withdrawn"]


async def test_two_withdrawals_at_once_are_one_event(alice: Client) -> None:
    for _ in range(5):
        path = await make_twin(alice, consent=False)
        consent = await grant(alice, path)
        first, second = await asyncio.gather(withdraw(alice, consent), withdraw(alice, consent))

        assert first == second
        assert await transitions(alice, path) == ["given", "withdrawn"]
        assert (await verify(alice, path))["valid"] is True


async def test_an_expired_consent_can_still_be_withdrawn(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    assert (await alice.get(location(consent))).json()["state"] == "expired"

    assert (await withdraw(alice, consent))["state"] == "withdrawn"
    assert await reason(alice, path) == "withdrawn"


async def test_after_a_withdrawal_the_person_can_agree_anew(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    old = await withdraw(alice, await grant(alice, path))
    new = await grant(alice, path)

    assert (await decide(alice, path))["consent_id"] == new["id"]
    assert (await alice.get(location(old))).json() == old
    # The old one is over: withdrawing it again must not touch the new.
    await withdraw(alice, old)
    assert await reason(alice, path) == "granted"
    assert await transitions(alice, path) == ["given", "withdrawn", "given"]


async def test_withdrawing_what_was_renewed_withdraws_the_renewal(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    first = await grant(alice, path, "voice")
    latest = await renew(alice, await renew(alice, first))
    withdrawn = await withdraw(alice, first)

    assert withdrawn["state"] == "withdrawn"
    assert (await alice.get(location(latest))).json()["state"] == "withdrawn"
    assert await reason(alice, path, "voice") == "withdrawn"
    event = (await ledger(alice, path))[-1]["event"]
    assert (event["type"], event["consent_id"]) == ("withdrawn", latest["id"])
    assert await transitions(alice, path) == ["given", "renewed", "renewed", "withdrawn"]


# --- Renewed -------------------------------------------------------------------------------------


async def test_a_renewal_replaces_the_consent_and_keeps_what_is_not_named(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    old = await grant(alice, path, "voice", "training", principal="zoe", method="paper", expires_at=after(24 * HOUR))
    answer = await alice.post(f"{location(old)}/renew")
    new = answer.json()

    assert answer.status_code == 201
    assert answer.headers["location"] == location(new)
    for name in ("purposes", "notice", "principal", "method", "twin_id"):
        assert new[name] == old[name]
    assert (new["state"], new["renews"], new["replaced_by"]) == ("given", old["id"], None)
    lives = [moment(c["expires_at"]) - moment(c["given_at"]) for c in (old, new)]
    assert abs(lives[0] - lives[1]) < timedelta(seconds=1)
    assert (await alice.get(location(old))).json() == old | {"state": "replaced", "replaced_by": new["id"]}
    for purpose in ("voice", "training"):
        assert (await decide(alice, path, purpose))["consent_id"] == new["id"]
    assert await transitions(alice, path) == ["given", "renewed"]
    event = (await ledger(alice, path))[-1]["event"]
    assert (event["consent_id"], event["renews"]) == (new["id"], old["id"])


async def test_a_renewal_may_change_notice_method_and_times_and_nothing_else(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    old = await grant(alice, path, expires_at=after(HOUR))
    changes = {"notice": NOTICE | {"version": "2"}, "method": "phone", "expires_at": None}
    new = await renew(alice, old, **changes)
    assert (new["notice"]["version"], new["method"], new["expires_at"]) == ("2", "phone", None)

    for name, value in (("purposes", ["voice"]), ("principal", "mallory")):
        refused = await alice.post(f"{location(new)}/renew", json={name: value})
        assert is_problem(refused, 422, "validation-failed")
        assert refused.json()["errors"][0]["pointer"] == f"#/{name}"


async def test_a_renewal_never_stops_a_live_twin(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    live = await grant(alice, path, expires_at=after(24 * HOUR))
    refused = await alice.post(
        f"{location(live)}/renew", json={"not_before": after(24 * HOUR), "expires_at": after(48 * HOUR)}
    )

    assert is_problem(refused, 422, "validation-failed")
    detail = "must not be later than now: the twin would have no consent until then"
    assert refused.json()["errors"] == [{"pointer": "#/not_before", "detail": detail}]
    assert await reason(alice, path) == "granted"
    assert await transitions(alice, path) == ["given"]


async def test_a_consent_that_is_not_valid_yet_is_renewed_without_becoming_valid(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    starts = datetime.now(UTC) + HOUR
    times = {"not_before": starts.isoformat(), "expires_at": (starts + HOUR).isoformat()}
    future = await grant(alice, path, **times)
    same = await renew(alice, future, method="phone")
    assert (same["not_before"], same["expires_at"]) == (future["not_before"], future["expires_at"])
    assert await reason(alice, path) == "not_yet_valid"

    later = await renew(alice, same, not_before=after(3 * HOUR))
    assert moment(later["expires_at"]) - moment(later["not_before"]) == HOUR
    assert await reason(alice, path) == "not_yet_valid"
    now = await renew(alice, later, not_before=None)
    assert now["not_before"] is None
    assert await reason(alice, path) == "granted"


async def test_a_notice_that_was_recorded_under_other_limits_can_be_renewed(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    old = await grant(alice, path)
    text = "I agree. " * 5000
    async with superuser(stores) as connection:
        await connection.execute(
            """
            WITH n AS (
                INSERT INTO notices SELECT twin_id, sha256(convert_to($2, 'UTF8')), $2 FROM consents WHERE id = $1
                RETURNING sha256
            )
            UPDATE consents SET notice_sha256 = n.sha256 FROM n WHERE id = $1
            """,
            old["id"],
            text,
        )

    assert (await renew(alice, old))["notice"]["text"] == text


async def test_an_expired_consent_is_renewed_to_a_live_one(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    old = await grant(alice, path, expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    assert await reason(alice, path) == "expired"

    new = await renew(alice, old)
    assert await decide(alice, path) | {"evaluated_at": None, "recipient": None} == {
        "decision": True,
        "purpose": "general",
        "reason": "granted",
        "consent_id": new["id"],
        "expires_at": new["expires_at"],
        "assurance": "recorded",
        "recipient": None,
        "evaluated_at": None,
    }


async def test_what_has_ended_cannot_be_renewed_and_its_state_is_told(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    replaced = await grant(alice, path, "replaced")
    await renew(alice, replaced)
    withdrawn = await withdraw(alice, await grant(alice, path, "withdrawn"))
    regranted = await grant(alice, path, "one", "two", expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    await grant(alice, path, "two")
    before = await ledger(alice, path)

    for consent, state in ((replaced, "replaced"), (withdrawn, "withdrawn"), (regranted, "expired")):
        refused = await alice.post(f"{location(consent)}/renew")
        assert is_problem(refused, 409, "consent-ended"), state
        assert refused.json()["state"] == state
    assert await ledger(alice, path) == before


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"expires_at": after(HOUR), "not_before": after(2 * HOUR)}, "#/expires_at"),
        ({"not_before": "5000-01-01T00:00:00Z"}, "#/expires_at"),  # as long again would be after the year 9999
        # As long again would be the calendar's last moment, which asyncpg takes for infinity.
        ({"not_before": "3998-12-31T23:59:59.999999Z"}, "#/expires_at"),
        ({"notice": {}}, "#/notice/version"),
        ({"method": ""}, "#/method"),
    ],
)
async def test_a_renewal_that_does_not_fit_changes_nothing(
    alice: Client, changes: dict[str, Any], pointer: str
) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, not_before="2999-12-31T23:59:59Z", expires_at="9000-12-31T23:59:59Z")
    refused = await alice.post(f"{location(consent)}/renew", json=changes)

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert (await alice.get(location(consent))).json() == consent
    assert await transitions(alice, path) == ["given"]


async def test_of_renewals_at_once_exactly_one_renews(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path)
    answers = await asyncio.gather(*(alice.post(f"{location(consent)}/renew") for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await transitions(alice, path) == ["given", "renewed"]


async def test_grants_and_renewals_sent_again_with_their_key_take_effect_once(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    body = {"purposes": ["voice"], "notice": NOTICE}
    given = [await alice.post(f"{path}/consents", json=body, headers={"Idempotency-Key": "give"}) for _ in range(2)]
    url = f"{location(given[0].json())}/renew"
    renewed = [await alice.post(url, headers={"Idempotency-Key": "renew"}) for _ in range(2)]

    for first, again in (given, renewed):
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.content == first.content
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"
    assert await transitions(alice, path) == ["given", "renewed"]


async def test_a_grant_sent_again_is_answered_with_what_has_become_of_it(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"person-{uuid4()}"
    path = await make_twin(alice, consent=False)
    body = {"purposes": ["voice"], "notice": NOTICE, "principal": sub}

    async def given() -> dict[str, Any]:
        answer = await alice.post(f"{path}/consents", json=body, headers={"Idempotency-Key": "give"})
        assert answer.status_code == 201
        consent: dict[str, Any] = answer.json()
        assert answer.headers["location"] == location(consent)
        return consent

    first = await given()
    renewed = await renew(alice, first)
    assert await given() == first | {"state": "replaced", "replaced_by": renewed["id"]}
    await client_of(sub).post(f"{location(first)}/withdraw")
    withdrawn = await given()
    assert (withdrawn["state"], withdrawn["withdrawn_by"]) == ("withdrawn", "principal")
    gone = await client_of(sub).delete("/api/v1/me")
    await finish(context, gone.headers["location"])
    nameless = await given()
    assert nameless["principal"].startswith("\x01erased:")
    assert nameless == (await alice.get(location(first))).json()
    assert await transitions(alice, path) == ["given", "renewed", "withdrawn"]


# --- Who may --------------------------------------------------------------------------------------


async def test_the_principal_may_read_answer_and_have_a_receipt_and_nothing_else(
    alice: Client, client_of: ClientOf
) -> None:
    paula = client_of("paula", "twins:watch consents:write")
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", principal="paula")
    other = await grant(alice, path, "training", principal="peter")
    url = location(consent)

    assert (await paula.get(url)).json() == consent
    assert (await paula.get(f"{url}/receipt")).status_code == 200
    for method, below, json in (
        ("GET", path, None),
        ("PATCH", path, {"consent": False}),
        ("DELETE", path, None),
        ("GET", f"{path}/consents", None),
        ("GET", f"{path}/ledger/verification", None),
        ("GET", f"{path}/persona", None),
        ("GET", f"{path}/persona/prompt", None),
        ("GET", location(other), None),
        ("GET", f"{location(other)}/receipt", None),
        ("POST", f"{location(other)}/withdraw", None),
    ):
        assert is_problem(await paula.request(method, below, json=json), 404, "not-found"), (method, below)
    assert (await paula.get("/api/v1/twins")).json()["items"] == []
    assert (await withdraw(paula, consent))["state"] == "withdrawn"
    assert await reason(alice, path, "voice") == "withdrawn"
    assert await reason(alice, path, "training") == "granted"


async def test_a_person_finds_what_they_have_agreed_to_and_nothing_else(
    alice: Client, bob: Client, client_of: ClientOf
) -> None:
    paula = client_of(f"paula-{uuid4()}")
    sub = (await paula.get("/api/v1/me")).json()["sub"]
    given = [
        await grant(client, await make_twin(client, consent=False), principal=sub) for client in (alice, bob, paula) * 2
    ]
    await grant(alice, await make_twin(alice), "voice", principal="somebody else")
    given[1] = await withdraw(paula, given[1])

    pages: list[list[dict[str, Any]]] = []
    cursor: str | None = None
    while not pages or cursor:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await paula.get("/api/v1/me/consents", params=params)).json()
        pages.append(page["items"])
        cursor = page["next_cursor"]
    assert pages == [given[:1:-1], given[1::-1]]
    assert (await bob.get("/api/v1/me/consents")).json()["items"] == []
    stolen = (await paula.get("/api/v1/me/consents", params={"limit": 1})).json()["next_cursor"]
    assert is_problem(await bob.get("/api/v1/me/consents", params={"cursor": stolen}), 422, "validation-failed")
    assert is_problem(await bob.get(f"/api/v1/twins/{given[0]['twin_id']}/consents"), 404, "not-found")


async def test_to_everybody_else_a_consent_is_missing(alice: Client, bob: Client, anyone: Client) -> None:
    path, own = await make_twin(alice, consent=False), await make_twin(bob)
    consent = await grant(alice, path)
    missing = f"{path}/consents/{MISSING}"
    # Its id below a twin of one's own is no way in either.
    below_own = f"{own}/consents/{consent['id']}"

    for client, url in ((bob, location(consent)), (bob, below_own), (alice, missing), (alice, below_own)):
        for method, below in (("GET", ""), ("GET", "/receipt"), ("POST", "/withdraw"), ("POST", "/renew")):
            assert is_problem(await client.request(method, url + below), 404, "not-found"), (method, url, below)
    for url in (path, f"/api/v1/twins/{MISSING}"):
        assert is_problem(await bob.get(f"{url}/consents"), 404, "not-found")
        body = {"purposes": ["x"], "notice": NOTICE}
        assert is_problem(await bob.post(f"{url}/consents", json=body), 404, "not-found")
        for below in ("decision", "ledger", "ledger/verification"):
            assert is_problem(await bob.get(f"{url}/{below}"), 404, "not-found")
    assert is_problem(await anyone.get(location(consent)), 401, "unauthorized")
    assert is_problem(await anyone.post(f"{location(consent)}/withdraw"), 401, "unauthorized")
    assert await reason(alice, path) == "granted"


# --- The twin's boolean ---------------------------------------------------------------------------


async def test_the_boolean_is_the_same_ledger(client_of: ClientOf) -> None:
    client = client_of("frida")
    path = await make_twin(client, consent=False)
    for consent in (False, True, True, False, False, True):
        answer = await client.patch(path, json={"consent": consent})
        assert answer.json()["consent"] is consent
        assert (await decide(client, path))["decision"] is consent

    assert await transitions(client, path) == ["given", "withdrawn", "given"]
    newest, oldest = (await client.get(f"{path}/consents")).json()["items"]
    assert (newest["state"], oldest["state"]) == ("given", "withdrawn")
    assert (newest["principal"], newest["method"], newest["purposes"]) == ("frida", "api", ["general"])
    await withdraw(client, newest)
    assert (await client.get(path)).json()["consent"] is False
    assert (await verify(client, path))["valid"] is True


async def test_the_boolean_false_withdraws_a_consent_that_covers_more(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "general", "voice")
    assert (await alice.get(path)).json()["consent"] is True
    await grant(alice, path, "training")
    await alice.patch(path, json={"consent": False})

    assert (await alice.get(location(consent))).json()["state"] == "withdrawn"
    assert [await reason(alice, path, p) for p in ("general", "voice", "training")] == [
        "withdrawn",
        "withdrawn",
        "granted",
    ]


async def test_the_boolean_true_after_expiry_is_a_new_grant(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    old = await grant(alice, path, expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    assert (await alice.patch(path, json={"consent": False})).json()["consent"] is False
    assert (await alice.get(location(old))).json()["state"] == "expired"
    assert (await alice.patch(path, json={"consent": True})).json()["consent"] is True

    assert await transitions(alice, path) == ["given", "given"]
    assert (await decide(alice, path))["consent_id"] != old["id"]


async def test_the_boolean_and_a_consent_that_is_not_valid_yet(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    future = await grant(alice, path, not_before=after(HOUR))
    refused = await alice.patch(path, json={"consent": True, "tone": "warm"})

    assert is_problem(refused, 409, "consent-active")
    assert refused.json()["consent_id"] == future["id"]
    assert (await alice.get(path)).json()["tone"] == ALEX["tone"]
    assert (await alice.patch(path, json={"consent": False})).status_code == 200
    assert await reason(alice, path) == "withdrawn"


async def test_a_patch_that_is_refused_leaves_consent_as_it_was(alice: Client) -> None:
    path = await make_twin(alice)
    stale = await alice.patch(path, json={"consent": False}, headers={"If-Match": '"stale"'})
    assert is_problem(stale, 412, "precondition-failed")
    unfit = await alice.patch(path, json={"consent": False, "tone": ""})
    assert is_problem(unfit, 422, "validation-failed")

    assert await transitions(alice, path) == ["given"]
    assert await reason(alice, path) == "granted"


async def test_a_patch_changes_consent_and_members_together(alice: Client) -> None:
    path = await make_twin(alice)
    patched = (await alice.patch(path, json={"consent": False, "tone": "warm"})).json()

    assert (patched["consent"], patched["tone"]) == (False, "warm")
    assert await transitions(alice, path) == ["given", "withdrawn"]


# --- The entity tag -------------------------------------------------------------------------------


async def test_every_consent_event_changes_the_twins_entity_tag(alice: Client) -> None:
    path = await make_twin(alice, consent=False)

    async def tag() -> str:
        return str((await alice.get(path)).headers["etag"])

    tags = [await tag()]
    consent = await grant(alice, path, "voice")
    tags.append(await tag())
    consent = await renew(alice, consent)
    tags.append(await tag())
    await withdraw(alice, consent)
    tags.append(await tag())
    assert len(set(tags)) == 4

    await withdraw(alice, consent)  # nothing happens, so nothing changes
    assert await tag() == tags[-1]
    stale = await alice.patch(path, json={"tone": "warm"}, headers={"If-Match": tags[-2]})
    assert is_problem(stale, 412, "precondition-failed")


async def test_expiry_changes_the_twin_and_its_entity_tag_without_a_write(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, expires_at=after(timedelta(seconds=0.4)))
    live = await alice.get(path)
    assert live.json()["consent"] is True
    condition = {"If-None-Match": live.headers["etag"]}
    assert (await alice.get(path, headers=condition)).status_code == 304
    await asyncio.sleep(0.45)

    expired = await alice.get(path, headers=condition)
    assert expired.status_code == 200
    assert expired.json() == live.json() | {"consent": False}
    stale = await alice.patch(path, json={"tone": "x"}, headers={"If-Match": live.headers["etag"]})
    assert is_problem(stale, 412, "precondition-failed")
    assert await transitions(alice, path) == ["given"]


# --- What the serving role cannot do ----------------------------------------------------------------


async def test_the_terms_of_a_consent_cannot_be_changed_by_the_application(alice: Client, context: Context) -> None:
    consent = await grant(alice, await make_twin(alice, consent=False))
    async with context.postgres.connection() as connection:
        columns = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'consents'::regclass AND attnum > 0 AND NOT attisdropped"
        )
        terms = {row["attname"] for row in columns}
        assert {"purposes", "principal", "given_at", "expires_at", "twin_id", "lineage"} <= terms
        for name in terms:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"UPDATE consents SET {name} = {name} WHERE id = $1", consent["id"])


async def test_a_notice_and_its_digest_belong_together(alice: Client, stores: Stores) -> None:
    consent = await grant(alice, await make_twin(alice, consent=False))
    async with superuser(stores) as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="notices_sha256"):
            await connection.execute(
                "UPDATE notices SET notice = notice || ' And more.' WHERE twin_id = $1", consent["twin_id"]
            )


async def test_the_database_itself_allows_one_state_for_each_twin_and_purpose(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path)
    async with superuser(stores) as connection:
        with pytest.raises(asyncpg.UniqueViolationError, match="consent_states_pkey"):
            await connection.execute(
                "INSERT INTO consent_states (twin_id, purpose, consent_id) VALUES ($1, 'general', $2)",
                id_of(path),
                consent["id"],
            )


@pytest.mark.parametrize(
    "slug", ["consent-active", "consent-ended", "consent-required", "answer-erased", "person-must-consent"]
)
async def test_every_refusal_has_a_page(anyone: Client, slug: str) -> None:
    page = await anyone.get(f"/problems/{slug}")

    assert page.status_code == 200
    assert slug.replace("-", " ").capitalize() in page.text
