"""A no stands as a lock, which only whoever said it can open."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jose import jwt

from tests.support.app import MISSING, Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import (
    HOUR,
    NOTICE,
    after,
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
from tests.support.stores import Stores
from twins.context import Context
from twins.refusal import queries


async def refuse(client: Client, path: str, *purposes: str, status: int = 201) -> dict[str, Any]:
    """Refuse purposes of the twin at `path`, or everything, and return the refusal."""
    answer = await client.post(f"{path}/refusals", json={"purposes": purposes} if purposes else None)
    assert answer.status_code == status, answer.text
    refusal: dict[str, Any] = answer.json()
    return refusal


async def refusals(client: Client, path: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{path}/refusals")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def place(path: str, refusal: dict[str, Any]) -> str:
    return f"{path}/refusals/{refusal['id']}"


async def offer(client: Client, path: str, *purposes: str, **terms: Any) -> httpx.Response:
    body = {"purposes": purposes or ("general",), "notice": NOTICE} | terms
    return await client.post(f"{path}/consents", json=body)


@pytest.fixture
def sub() -> str:
    return f"paula-{uuid4()}"


@pytest.fixture
def paula(client_of: ClientOf, sub: str) -> Client:
    return client_of(sub)


async def twin_of(alice: Client, *principals: str) -> str:
    """Make a twin that lists these principals, without consent."""
    return await make_twin(alice, consent=False, principals=principals)


# --- Who may -------------------------------------------------------------------------------------------


async def test_to_a_stranger_the_twin_does_not_exist_and_nothing_is_closed(
    alice: Client, bob: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    await grant(alice, path)
    for method, below, body in (
        ("POST", "/refusals", None),
        ("POST", "/refusals", {"purposes": ["general"]}),
        ("GET", "/refusals", None),
        ("DELETE", f"/refusals/{MISSING}", None),
    ):
        answer = await bob.request(method, path + below, json=body)
        assert is_problem(answer, 404, "not-found"), (method, below)
        missing = await bob.request(method, f"/api/v1/twins/{MISSING}{below}", json=body)
        assert answer.json()["detail"] == missing.json()["detail"]

    assert await reason(alice, path) == "granted"
    assert await transitions(alice, path) == ["given"]


async def test_an_owner_who_is_not_the_person_may_revoke_and_not_refuse(alice: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(alice, path, principal=sub)

    assert is_problem(await alice.post(f"{path}/refusals"), 404, "not-found")
    assert (await withdraw(alice, consent))["withdrawn_by"] == "owner"
    assert await refusals(alice, path) == []
    await grant(alice, path, principal=sub)  # a revocation closes nothing


async def test_whoever_was_ever_named_may_refuse_for_good(alice: Client, client_of: ClientOf) -> None:
    listed, named = [f"{who}-{uuid4()}" for who in ("listed", "named")]
    path = await twin_of(alice, listed)
    await alice.patch(path, json={"principals": []})
    await grant(alice, path, expires_at=after(HOUR), principal=named)

    for who in (listed, named):
        await refuse(client_of(who), path, "voice")
    assert len(await refusals(alice, path)) == 2


async def test_an_operator_says_no_for_somebody_and_never_yes(alice: Client, client_of: ClientOf, sub: str) -> None:
    operator, second = client_of("operator", "twins:stop"), client_of("second", "twins:stop")
    path = await make_twin(alice)
    refusal = await refuse(operator, path, "general")

    assert await reason(alice, path) == "refused"
    (consent,) = (await alice.get(f"{path}/consents")).json()["items"]
    assert [item["by"] for item in consent["withdrawn"]] == ["operator"]
    assert refusal["by"] == "operator"
    assert is_problem(await offer(operator, path), 404, "not-found")
    assert is_problem(await offer(alice, path), 409, "person-must-consent")
    assert (await refusals(operator, path)) == (await refusals(alice, path)) == [refusal]
    assert is_problem(await alice.delete(place(path, refusal)), 404, "not-found")
    assert (await second.delete(place(path, refusal))).status_code == 204


async def test_an_operator_withdraws_a_consent_in_the_name_of_its_person(
    alice: Client, client_of: ClientOf, sub: str
) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "voice", "training", principal=sub)
    answer = await client_of("operator", "twins:stop").post(
        f"{location(consent)}/withdraw", json={"purposes": ["voice"]}
    )

    assert answer.status_code == 200
    assert [(item["purpose"], item["by"]) for item in answer.json()["withdrawn"]] == [("voice", "operator")]
    assert [await reason(alice, path, purpose) for purpose in ("voice", "training")] == ["withdrawn", "granted"]


# --- What a no does ------------------------------------------------------------------------------------


async def test_a_refusal_ends_what_it_covers_whichever_consent_holds_it(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    first = await grant(alice, path, "voice", "training")
    second = await grant(alice, path, "face", principal=sub)
    refusal = await refuse(paula, path, "voice", "face", "never-named")

    assert refusal["purposes"] == ["face", "never-named", "voice"]
    for client in (paula, alice):
        assert (await client.get(place(path, refusal))).json() == refusal
    assert refusal["by"] == "account"
    seen = [await reason(alice, path, purpose) for purpose in ("voice", "training", "face", "never-named", "other")]
    assert seen == ["refused", "granted", "refused", "refused", "no_consent"]
    ended = (await alice.get(location(first))).json()
    assert (ended["state"], [(item["purpose"], item["by"]) for item in ended["withdrawn"]]) == (
        "given",
        [("voice", "person")],
    )
    whole = (await paula.get(location(second))).json()
    assert (whole["state"], whole["withdrawn_by"]) == ("withdrawn", "principal")
    assert await transitions(alice, path) == ["given", "given", "refused"]
    assert (await verify(alice, path))["valid"] is True


async def test_a_refusal_of_everything_ends_everything_and_what_nobody_has_named_yet(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    consents = [await grant(alice, path, purpose) for purpose in ("general", "voice")]
    for content in (b"", b"{}"):
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        answer = await paula.post(f"{path}/refusals", content=content, headers=headers)
        assert answer.json()["purposes"] is None

    assert [await reason(alice, path, purpose) for purpose in ("general", "voice", "new")] == ["refused"] * 3
    for consent in consents:
        ended = (await alice.get(location(consent))).json()
        assert (ended["state"], ended["withdrawn_by"]) == ("withdrawn", "person")
    assert (await alice.get(path)).json()["consent"] is False
    usable = (await alice.get("/api/v1/twins", params={"consent": "true"})).json()["items"]
    assert str(id_of(path)) not in {twin["id"] for twin in usable}
    assert is_problem(await alice.put(f"{path}/persona", json={"summary": "x"}), 403, "consent-required")
    assert await transitions(alice, path) == ["given", "given", "refused"]


async def test_the_same_no_again_changes_nothing_and_another_widens_it(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    first = await refuse(paula, path, "voice")
    assert await refuse(paula, path, "voice", status=200) == first
    wider = await refuse(paula, path, "face", status=200)
    assert wider == first | {"purposes": ["face", "voice"]}
    everything = await refuse(paula, path, status=200)
    assert everything == first | {"purposes": None}
    assert await refuse(paula, path, "voice", status=200) == everything

    assert await refusals(paula, path) == [everything]
    assert await transitions(alice, path) == ["refused"] * 3


async def test_more_than_a_hundred_purposes_are_everything(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    await grant(alice, path, "untouched")
    await refuse(paula, path, *(f"p{n}" for n in range(100)))
    assert await reason(alice, path, "untouched") == "granted"
    wider = await refuse(paula, path, "one-more", status=200)

    assert wider["purposes"] is None
    assert await reason(alice, path, "untouched") == "refused"


@pytest.mark.parametrize(
    "body",
    [
        {"purposes": []},
        {"purposes": ["voice", "voice"]},
        {"purposes": [f"p{n}" for n in range(101)]},
        {"purposes": ["Voice"]},
        {"purposes": "voice"},
        {"dry_run": True},
        [],
    ],
)
async def test_a_bad_refusal_is_refused_and_changes_nothing(
    alice: Client, paula: Client, sub: str, body: object
) -> None:
    path = await twin_of(alice, sub)
    await grant(alice, path)

    assert is_problem(await paula.post(f"{path}/refusals", json=body), 422, "validation-failed")
    assert await reason(alice, path) == "granted"
    assert await refusals(paula, path) == []


# --- A no stands in the way of the next yes ------------------------------------------------------------


async def test_once_a_person_has_spoken_the_owners_word_grants_and_widens_nothing(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    future = await grant(alice, path, "later", not_before=after(HOUR))
    await refuse(paula, path, "voice")

    for answer in (
        await offer(alice, path, "voice"),
        await offer(alice, path, "voice-2"),
        await offer(alice, path, "voice-2", principal=sub),
        await alice.patch(path, json={"consent": True}),
        await alice.post(f"{location(future)}/renew", json={"not_before": None}),
    ):
        assert is_problem(answer, 409, "person-must-consent")
    assert [await reason(alice, path, purpose) for purpose in ("voice", "voice-2", "general", "later")] == [
        "refused",
        "no_consent",
        "no_consent",
        "not_yet_valid",
    ]
    assert (await withdraw(alice, future))["state"] == "withdrawn"  # the owner may always narrow


async def test_a_yes_of_the_author_opens_their_refusal_for_what_it_grants_and_no_more(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    await refuse(paula, path, "voice", "face")
    consent = await grant(paula, path, "voice")

    assert consent["principal"] == sub
    assert [item["purposes"] for item in await refusals(paula, path)] == [["face"]]
    assert [await reason(alice, path, purpose) for purpose in ("voice", "face")] == ["granted", "refused"]
    await grant(paula, path, "face")
    assert await refusals(paula, path) == []
    assert await transitions(alice, path) == ["refused", "opened", "given", "opened", "given"]
    assert (await verify(alice, path))["valid"] is True


async def test_everything_stays_locked_but_for_what_its_author_grants(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    await refuse(paula, path)
    await grant(paula, path, "voice")

    (refusal,) = await refusals(paula, path)
    assert (refusal["purposes"], refusal["exceptions"]) == (None, ["voice"])
    assert [await reason(alice, path, purpose) for purpose in ("voice", "face")] == ["granted", "refused"]
    assert is_problem(await offer(alice, path, "face"), 409, "person-must-consent")
    await refuse(paula, path, "voice", "never-named", status=200)
    assert [await reason(alice, path, purpose) for purpose in ("voice", "never-named")] == ["refused"] * 2
    assert [item["exceptions"] for item in await refusals(paula, path)] == [[]]
    assert (await verify(alice, path))["reason"] is None


async def test_anothers_refusal_stands_in_the_way_of_every_yes(alice: Client, client_of: ClientOf) -> None:
    subs = [f"{who}-{uuid4()}" for who in ("one", "two")]
    one, two = (client_of(who) for who in subs)
    path = await twin_of(alice, *subs)
    await refuse(one, path, "voice")

    assert is_problem(await offer(two, path, "voice", "face"), 409, "person-must-consent")
    await grant(two, path, "face")
    await grant(one, path, "voice")


async def test_a_second_account_of_the_owners_opens_nobody_elses_refusal(
    alice: Client, client_of: ClientOf, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    await refuse(paula, path, "general")
    mine = (await alice.get("/api/v1/me")).json()["sub"]
    puppet = f"puppet-{uuid4()}"
    await alice.patch(path, json={"principals": [mine, puppet]})

    for client in (alice, client_of(puppet)):
        assert is_problem(await offer(client, path), 409, "person-must-consent")
    assert is_problem(await alice.patch(path, json={"consent": True}), 409, "person-must-consent")
    assert await reason(alice, path) == "refused"


# --- How it opens --------------------------------------------------------------------------------------


async def test_opening_grants_nothing_and_revives_nothing(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(alice, path, principal=sub)
    refusal = await refuse(paula, path)
    for _ in range(2):
        opened = await paula.delete(place(path, refusal))
        assert (opened.status_code, opened.content) == (204, b"")

    assert await refusals(paula, path) == []
    assert [await reason(alice, path, purpose) for purpose in ("general", "voice")] == ["refused"] * 2
    assert (await alice.get(location(consent))).json()["state"] == "withdrawn"
    assert is_problem(await offer(alice, path), 409, "person-must-consent")
    await grant(paula, path)
    assert await transitions(alice, path) == ["given", "refused", "opened", "given"]


async def test_after_opening_the_same_no_is_a_new_one(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    first = await refuse(paula, path, "voice")
    await paula.delete(place(path, first))
    second = await refuse(paula, path, "voice")

    assert second["id"] != first["id"]
    # A repeat of the first opening, which arrives late, opens nothing.
    assert (await paula.delete(place(path, first))).status_code == 204
    assert await refusals(paula, path) == [second]


async def test_nobody_else_opens_a_refusal_or_learns_whose_it_is(
    alice: Client, client_of: ClientOf, paula: Client, sub: str
) -> None:
    other = f"other-{uuid4()}"
    path = await twin_of(alice, sub, other)
    refusal = await refuse(paula, path, "voice")
    for client in (alice, client_of(other), client_of("operator", "twins:stop")):
        assert is_problem(await client.delete(place(path, refusal)), 404, "not-found")
    assert is_problem(await client_of(other).get(place(path, refusal)), 404, "not-found")

    assert await refusals(alice, path) == [refusal]
    assert sub not in str(await refusals(alice, path)) + str(await ledger(alice, path))
    assert await refusals(client_of(other), path) == []


async def test_refusals_are_listed_by_page(alice: Client, client_of: ClientOf) -> None:
    subs = [f"p{n}-{uuid4()}" for n in range(3)]
    path = await twin_of(alice, *subs)
    made = [await refuse(client_of(who), path, "voice") for who in subs]
    first = await alice.get(f"{path}/refusals", params={"limit": 2})
    second = await alice.get(first.links["next"]["url"])

    assert first.json()["items"] + second.json()["items"] == made
    assert "next" not in second.links


async def test_ones_own_refusal_is_found_among_any_number_of_others(
    alice: Client, paula: Client, sub: str, stores: Stores, context: Context
) -> None:
    path = await twin_of(alice, sub)
    mine = await refuse(paula, path, "voice")
    async with superuser(stores) as connection:
        await connection.execute(
            "INSERT INTO locks (twin_id, id, opener_kind, purposes, refused_at)"
            " SELECT $1, gen_random_uuid(), 'none', '{voice}', now() FROM generate_series(1, 60000)",
            id_of(path),
        )
        await connection.execute("ANALYZE locks")
    assert await refusals(paula, path) == [mine]
    assert await rows_of_locks_read(context, sub, path) <= 2
    page = await alice.get(f"{path}/refusals", params={"limit": 100})
    assert (len(page.json()["items"]), page.json()["next_cursor"] is None) == (100, False)
    after_mine = await paula.get(f"{path}/refusals", params={"limit": 1})
    assert after_mine.json()["next_cursor"] is None
    async with superuser(stores) as connection:
        await connection.execute("DELETE FROM locks WHERE twin_id = $1 AND opener_kind = 'none'", id_of(path))
        await connection.execute("ANALYZE locks")


async def rows_of_locks_read(context: Context, sub: str, path: str) -> float:
    """Return how many rows of `locks` the list of one's own refusals reads, those left out included."""
    plans: list[str] = []

    class Explaining:
        async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
            async with context.postgres.connection() as connection:
                plans.append(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments))
            return []

    own: Any = Explaining()
    await queries.select_locks(own, sub, sub, id_of(path), None, 100, is_operator=False)
    return max(
        float(node["Actual Loops"]) * float(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes(json.loads(plans[0])[0]["Plan"])
        if node.get("Relation Name") == "locks"
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


# --- Withdrawals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["live", "expired", "replaced", "revoked"])
async def test_a_person_withdraws_a_consent_in_their_name_whatever_its_state(
    alice: Client, paula: Client, sub: str, stores: Stores, before: str
) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "voice", principal=sub, expires_at=after(HOUR))
    match before:
        case "expired":
            async with superuser(stores) as connection:
                await pass_time(connection, 2 * HOUR, path)
        case "replaced":
            await renew(alice, consent)
        case "revoked":
            await withdraw(alice, consent)
    withdrawn = await withdraw(paula, consent)

    assert withdrawn["state"] == "withdrawn"
    assert await reason(alice, path, "voice") == "withdrawn"
    assert [item["purposes"] for item in await refusals(alice, path)] == [["voice"]]
    assert is_problem(await offer(alice, path, "voice"), 409, "person-must-consent")
    events = await transitions(alice, path)
    await withdraw(paula, consent)
    assert await transitions(alice, path) == events


async def test_a_withdrawal_ends_a_consent_that_somebody_else_recorded_for_the_same_purpose(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice)
    old = await grant(alice, path, "voice", principal=sub)
    await withdraw(alice, old)
    await grant(alice, path, "voice", principal="somebody else")
    await withdraw(paula, old)

    assert await reason(alice, path, "voice") == "refused"


async def test_part_of_a_consent_can_be_withdrawn_and_the_renewal_covers_the_rest(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(paula, path, "voice", "face")
    part = await paula.post(f"{location(consent)}/withdraw", json={"purposes": ["voice"]})

    assert part.json()["state"] == "given"
    assert [(item["purpose"], item["by"]) for item in part.json()["withdrawn"]] == [("voice", "principal")]
    assert [await reason(alice, path, purpose) for purpose in ("voice", "face")] == ["withdrawn", "granted"]
    renewed = await renew(paula, consent)
    assert renewed["purposes"] == ["face"]
    assert is_problem(await alice.post(f"{location(renewed)}/renew"), 409, "person-must-consent")
    # The line of renewals still has what it ever had.
    whole = await paula.post(f"{location(renewed)}/withdraw", json={})
    assert whole.json()["state"] == "withdrawn"
    assert await refusals(paula, path) == [
        (await refusals(alice, path))[0] | {"purposes": ["face", "voice"]},
    ]


@pytest.mark.parametrize("purposes", [[], ["face"], ["voice", "voice"], ["voice", "face"]])
async def test_a_withdrawal_of_nothing_or_of_a_foreign_purpose_is_refused(
    alice: Client, paula: Client, sub: str, purposes: list[str]
) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "voice", principal=sub)
    for client in (alice, paula):
        answer = await client.post(f"{location(consent)}/withdraw", json={"purposes": purposes})
        assert is_problem(answer, 422, "validation-failed")
    assert await reason(alice, path, "voice") == "granted"


async def test_the_owners_own_no_is_a_refusal_only_where_the_twin_lists_them(
    alice: Client,
) -> None:
    mine = (await alice.get("/api/v1/me")).json()["sub"]
    unlisted, listed = await make_twin(alice), await make_twin(alice, principals=[mine])
    for path in (unlisted, listed):
        assert (await alice.patch(path, json={"consent": False})).json()["consent"] is False

    assert await refusals(alice, unlisted) == []
    assert [item["purposes"] for item in await refusals(alice, listed)] == [["general"]]
    for path in (unlisted, listed):  # each opens by the same account's yes
        assert (await alice.patch(path, json={"consent": True})).json()["consent"] is True
    assert await refusals(alice, listed) == []


async def test_a_receipt_shows_the_refusals_over_its_consent_and_never_whose(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(alice, path, "voice", principal="somebody")
    await refuse(paula, path, "face", "voice")
    receipt = (await alice.get(f"{location(consent)}/receipt")).text
    claims = jwt.get_unverified_claims(receipt)

    assert [(item["purposes"], item["by"]) for item in claims["refusals"]] == [(["face", "voice"], "account")]
    assert claims["consent_status"] == "dpv:ConsentWithdrawn"
    assert sub not in str(claims)


# --- The person by token -------------------------------------------------------------------------------


async def test_a_person_records_and_renews_their_own_consent(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(paula, path, "voice", principal=sub, expires_at=after(HOUR))
    renewed = await renew(paula, consent)

    assert (renewed["renews"], renewed["principal"]) == (consent["id"], sub)
    assert await reason(alice, path, "voice") == "granted"
    assert is_problem(await alice.post(f"{location(renewed)}/renew"), 409, "person-must-consent")
    assert await transitions(alice, path) == ["given", "renewed"]


async def test_a_person_speaks_for_nobody_else(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    refused = await offer(paula, path, "voice", principal="somebody else")

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["pointer"] == "#/principal"
    theirs = await grant(alice, path, "voice", principal="somebody else")
    assert is_problem(await paula.post(f"{location(theirs)}/renew"), 404, "not-found")


# --- All at once ---------------------------------------------------------------------------------------


async def test_fifty_grants_against_one_refusal_end_no(alice: Client, paula: Client, sub: str) -> None:
    for _ in range(3):
        path = await twin_of(alice, sub)
        no = asyncio.create_task(paula.post(f"{path}/refusals"))
        answers = await asyncio.gather(*(offer(alice, path, f"p{n}") for n in range(50)))
        assert (await no).status_code == 201

        assert {answer.status_code for answer in answers} <= {201, 409}
        items = [{"twin_id": str(id_of(path)), "purpose": f"p{n}"} for n in range(50)]
        batch = (await alice.post("/api/v1/decisions", json={"items": items})).json()["items"]
        assert {item["reason"] for item in batch} == {"refused"}
        assert (await verify(alice, path))["valid"] is True


async def test_fifty_noes_of_one_account_at_once_are_one_refusal(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    answers = await asyncio.gather(*(paula.post(f"{path}/refusals", json={"purposes": ["voice"]}) for _ in range(50)))

    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert await transitions(alice, path) == ["refused"]


async def test_a_no_and_a_yes_are_as_quick_on_a_twin_with_a_hundred_thousand_purposes(
    alice: Client, paula: Client, sub: str, stores: Stores
) -> None:
    async def seconds(path: str) -> float:
        began = time.monotonic()
        await refuse(paula, path)
        await grant(paula, path, "voice", "face")
        await refuse(paula, path, "voice", status=200)  # no exception of the refusal any more
        await grant(paula, path, "voice")
        return time.monotonic() - began

    empty = await seconds(await make_twin(alice, consent=False, principals=[sub]))
    path = await make_twin(alice, consent=False, principals=[sub])
    async with superuser(stores) as connection:
        await connection.execute(
            "INSERT INTO consent_states (twin_id, purpose, no, seq) "
            "SELECT $1, 'p' || n, 'refused', 1 FROM generate_series(1, 100000) AS n",
            id_of(path),
        )
    assert await seconds(path) < 3 * empty + 1.0
    async with superuser(stores) as connection:
        await connection.execute(
            "DELETE FROM consent_states WHERE twin_id = $1 AND consent_id IS NULL AND purpose LIKE 'p%'", id_of(path)
        )
    assert (await verify(alice, path))["reason"] is None
