"""External ids: what others call a twin, and that an id stays where a person has spoken."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.support.app import ALEX, FRONTS, MISSING, Client, ClientOf, front, id_of, is_problem, make_twin
from tests.support.consent import HOUR, after, grant, location, reason, renew, verify
from tests.support.database import owner_of, superuser
from tests.support.erasure import certificate_of, dump, erase, erasure_of, finish, traces
from tests.support.issuer_server import IssuerServer, Signing
from tests.support.stores import Stores
from twins.context import Context
from twins.decision import queries
from twins.limits import key_of_account

type Ids = list[dict[str, str]]


def voice(name: str | None = None, kind: str = "elevenlabs-voice") -> dict[str, str]:
    return {"type": kind, "id": name or f"Voice-{uuid4()}"}


async def ids_of(client: Client, path: str) -> Ids:
    found: Ids = (await client.get(path)).json()["external_ids"]
    return found


async def ask(client: Client, *items: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post("/api/v1/decisions", json={"items": items})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def twin_of(client: Client, external: dict[str, str]) -> str | None:
    """Return the twin that has an id, of which the gate and the list say the same."""
    (decision,) = await ask(client, {"external_id": external})
    query = {"external_type": external["type"], "external_id": external["id"]}
    listed = (await client.get("/api/v1/twins", params=query)).json()
    assert listed["next_cursor"] is None
    twins = [twin["id"] for twin in listed["items"]]
    assert twins == ([] if decision["twin_id"] is None else [decision["twin_id"]])
    assert (decision["reason"] == "not_found") == (twins == [])
    found: str | None = decision["twin_id"]
    return found


def is_kept(answer: httpx.Response, place: int = 0) -> bool:
    assert answer.status_code == 409, answer.text
    assert answer.json()["pointer"] == f"#/external_ids/{place}"
    return is_problem(answer, 409, "external-id-kept")


# --- Bad requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("external_ids", "pointer"),
    [
        (None, "#/external_ids"),
        ("x", "#/external_ids"),
        ([None], "#/external_ids/0"),
        ([{}], "#/external_ids/0/type"),
        ([{"type": "voice"}], "#/external_ids/0/id"),
        ([{"type": "Voice", "id": "x"}], "#/external_ids/0/type"),
        ([{"type": "", "id": "x"}], "#/external_ids/0/type"),
        ([{"type": "v" * 64, "id": "x"}], "#/external_ids/0/type"),
        ([{"type": "voice", "id": ""}], "#/external_ids/0/id"),
        ([{"type": "voice", "id": " "}], "#/external_ids/0/id"),
        ([{"type": "voice", "id": "a\nb"}], "#/external_ids/0/id"),
        ([{"type": "voice", "id": "x" * 256}], "#/external_ids/0/id"),
        ([{"type": "voice", "id": 1}], "#/external_ids/0/id"),
        ([{"type": "voice", "id": "x", "name": "y"}], "#/external_ids/0/name"),
        ([{"type": "voice", "id": "x"}] * 2, "#/external_ids"),
        ([{"type": "voice", "id": f"{n}"} for n in range(21)], "#/external_ids"),
    ],
    ids=str,
)
async def test_a_bad_id_is_refused_and_changes_nothing(alice: Client, external_ids: Any, pointer: str) -> None:
    mine = voice()
    path = await make_twin(alice, external_ids=[mine])
    for answer in (
        await alice.post("/api/v1/twins", json=ALEX | {"external_ids": external_ids}),
        await alice.patch(path, json={"external_ids": external_ids, "tone": "cold"}),
    ):
        assert is_problem(answer, 422, "validation-failed")
        assert answer.json()["errors"][0]["pointer"] == pointer
    twins = (await alice.get("/api/v1/twins")).json()["items"]
    assert [(twin["external_ids"], twin["tone"]) for twin in twins] == [([mine], "professional")]


@pytest.mark.parametrize(
    ("question", "pointer"),
    [
        ({}, "#/items/0/twin_id"),
        ({"purpose": "voice"}, "#/items/0/twin_id"),
        ({"external_id": None}, "#/items/0/external_id"),
        ({"external_id": {"type": "voice"}}, "#/items/0/external_id/id"),
        ({"external_id": {"type": "voice", "id": "x"}, "twin_id": MISSING}, "#/items/0/twin_id"),
        ({"twin_id": MISSING, "owner": "alice"}, "#/items/0/owner"),
        ({"external_id": {"type": "voice", "id": "x"}, "owner": ""}, "#/items/0/owner"),
        ({"external_id": {"type": "voice", "id": "x"}, "owner": 1}, "#/items/0/owner"),
        ({"external_id": {"type": "voice", "id": "x"}, "owner": {"issuer": "i"}}, "#/items/0/owner/subject"),
        (
            {"external_id": {"type": "voice", "id": "x"}, "owner": {"issuer": "i", "organization": "a\nb"}},
            "#/items/0/owner/organization",
        ),
        (1, "#/items/0"),
    ],
    ids=str,
)
async def test_a_question_names_one_twin_in_one_way(alice: Client, question: Any, pointer: str) -> None:
    answer = await alice.post("/api/v1/decisions", json={"items": [question]})

    assert is_problem(answer, 422, "validation-failed")
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("external_type=voice", "external_id"),
        ("external_id=x", "external_type"),
        ("external_type=Voice&external_id=x", "external_type"),
        ("external_type=voice&external_id=", "external_id"),
        ("external_type=voice&external_id=%00", "external_id"),
    ],
)
async def test_a_bad_filter_is_refused(alice: Client, query: str, parameter: str) -> None:
    answer = await alice.get(f"/api/v1/twins?{query}")

    assert is_problem(answer, 422, "validation-failed")
    assert answer.json()["errors"][0]["parameter"] == parameter


# --- Until a person has spoken -----------------------------------------------------------------------------


async def test_ids_are_shown_as_sent_replaced_and_removed(alice: Client) -> None:
    first, second, odd = voice(), voice(kind="resemble.voice"), voice(" Straße/é ï%20\u0065\u0301 ")
    path = await make_twin(alice, external_ids=[second, first, odd])
    assert await ids_of(alice, path) == [second, first, odd]
    tag = (await alice.get(path)).headers["etag"]

    same = await alice.patch(path, json={"external_ids": [second, first, odd]})
    assert same.headers["etag"] == tag  # nothing has changed
    turned = await alice.patch(path, json={"external_ids": [odd, second]})
    assert turned.json()["external_ids"] == [odd, second]
    assert turned.headers["etag"] != tag
    assert turned.headers["etag"] == (await alice.get(path)).headers["etag"]
    assert (await alice.patch(path, json={"tone": "cold"})).json()["external_ids"] == [odd, second]
    assert [twin["external_ids"] for twin in (await alice.get("/api/v1/twins")).json()["items"]] == [[odd, second]]
    assert await twin_of(alice, odd) == str(id_of(path))
    assert await twin_of(alice, first) is None
    gone = await alice.patch(path, json={"external_ids": []})
    assert gone.json()["external_ids"] == []
    assert await twin_of(alice, odd) is None


async def test_an_id_moves_freely_and_the_other_twin_has_a_new_entity_tag(alice: Client) -> None:
    mine, other = voice(), voice()
    one = await make_twin(alice, external_ids=[mine, other])
    tag = (await alice.get(one)).headers["etag"]
    two = await make_twin(alice, external_ids=[mine])

    assert (await ids_of(alice, one), await ids_of(alice, two)) == ([other], [mine])
    assert is_problem(await alice.patch(one, json={"tone": "x"}, headers={"If-Match": tag}), 412, "precondition-failed")
    assert await twin_of(alice, mine) == str(id_of(two))
    assert (await alice.patch(one, json={"external_ids": [mine]})).json()["external_ids"] == [mine]
    assert (await ids_of(alice, two), await twin_of(alice, other)) == ([], None)
    await erase(alice, one)
    assert await twin_of(alice, mine) is None
    await make_twin(alice, external_ids=[mine])


async def test_the_filters_of_the_list_hold_together(alice: Client, bob: Client) -> None:
    mine = voice()
    path = await make_twin(alice, external_ids=[mine], tone="warm")
    await make_twin(bob, external_ids=[mine])
    query = {"external_type": mine["type"], "external_id": mine["id"]}
    for filters, found in (({"tone": "warm"}, True), ({"tone": "cold"}, False), ({"consent": "false"}, False)):
        items = (await alice.get("/api/v1/twins", params=query | filters)).json()["items"]
        assert [twin["id"] for twin in items] == ([str(id_of(path))] if found else [])


async def test_a_repeated_creation_is_answered_with_the_ids(alice: Client) -> None:
    key, body = {"Idempotency-Key": "a"}, ALEX | {"external_ids": [voice()]}
    first = await alice.post("/api/v1/twins", json=body, headers=key)
    again = await alice.post("/api/v1/twins", json=body, headers=key)

    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert again.headers["etag"] == first.headers["etag"]


async def test_ids_that_many_want_at_once_end_on_one_twin_each(alice: Client, stores: Stores) -> None:
    wanted = [voice() for _ in range(5)]
    paths = [await make_twin(alice) for _ in range(6)]
    changes = (
        alice.patch(path, json={"external_ids": wanted[n % 5 :] + wanted[: n % 5] if n % 3 else []})
        for n, path in enumerate(paths * 5)
    )
    answers = await asyncio.gather(*changes)
    assert {answer.status_code for answer in answers} == {200}
    await alice.patch(paths[0], json={"external_ids": wanted})

    assert await ids_of(alice, paths[0]) == wanted
    assert [await ids_of(alice, path) for path in paths[1:]] == [[]] * 5
    async with owner_of(stores) as connection:
        ids = [id_of(path) for path in paths]
        assert await connection.fetchval("SELECT count(*) FROM external_ids WHERE twin_id = ANY ($1)", ids) == 5


# --- The gate ----------------------------------------------------------------------------------------------


async def test_whoever_may_ask_asks_with_the_id_that_they_hold(alice: Client, bob: Client, client_of: ClientOf) -> None:
    mine = voice()
    sub = (await alice.get("/api/v1/me")).json()["sub"]
    path = await make_twin(alice, external_ids=[mine])
    consent = await grant(alice, path, "voice")
    named = {"external_id": mine, "owner": sub, "purpose": "voice"}
    own = {"external_id": mine, "purpose": "voice"}
    by_id = {"twin_id": str(id_of(path)), "purpose": "voice"}

    answers = await ask(alice, own, named, by_id, {"external_id": mine, "purpose": "other"}, {"external_id": voice()})
    assert [item["reason"] for item in answers] == ["granted"] * 3 + ["no_consent", "not_found"]
    assert [item.get("twin_id") for item in answers] == [str(id_of(path))] * 2 + [None, str(id_of(path)), None]
    assert answers[0] == answers[1] == answers[2] | {"twin_id": str(id_of(path))}
    assert answers[0]["consent_id"] == consent["id"]
    assert "twin_id" not in answers[2]  # as it always was
    # Who may not ask about the twin cannot tell it from one that is not there.
    nothing = [named | {"external_id": voice()}, own | {"external_id": voice()}, by_id | {"twin_id": MISSING}]
    foreign = await ask(bob, named, own, by_id, *nothing)
    assert foreign[:3] == foreign[3:]
    assert {item["reason"] for item in foreign} == {"not_found"}
    service = client_of("a-service", "twins:decide")
    assert [item["reason"] for item in await ask(service, named, own, by_id)] == ["granted", "not_found", "granted"]
    # The same id of another owner is another twin.
    theirs = await make_twin(bob, external_ids=[mine], consent=False)
    assert [item["twin_id"] for item in await ask(service, named, named | {"owner": "nobody"})] == [
        str(id_of(path)),
        None,
    ]
    assert await twin_of(bob, mine) == str(id_of(theirs))


@pytest.mark.parametrize("change", [str.upper, str.swapcase, lambda name: f"{name} ", lambda name: name + "\u0301"])
async def test_another_spelling_is_another_id(alice: Client, change: Any) -> None:
    mine = voice()
    path = await make_twin(alice, external_ids=[mine], principals=["paula"])
    other = mine | {"id": change(mine["id"])}

    assert await twin_of(alice, other) is None
    assert await twin_of(alice, mine) == str(id_of(path))


async def test_a_question_by_an_id_reads_one_row_of_each_table(alice: Client, context: Context) -> None:
    mine = voice()
    sub = (await alice.get("/api/v1/me")).json()["sub"]
    await make_twin(alice, external_ids=[mine])
    digest = context.external_digest(sub, mine["type"], mine["id"])
    plans: list[str] = []

    class Explaining:
        async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
            async with context.postgres.connection() as connection:
                rows = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *arguments)
                plans.append("\n".join(row[0] for row in rows))
                return [{"place": None, "evaluated_at": None}]

    question = queries.Asked("general", key_of_account(sub))
    await queries.select_answers(Explaining(), sub, sub, False, [None], [digest], [question])  # type: ignore[arg-type]
    assert "external_ids_pkey" in plans[0]
    assert "twins_pkey" in plans[0]
    for table in ("external_ids", "twins", "consent_states"):
        assert f"Seq Scan on {table}" not in plans[0]


# --- An id stays where a person has spoken -------------------------------------------------------------------


async def speak(alice: Client, paula: Client, path: str, how: str) -> None:
    """Let a person speak on a twin that lists them."""
    if how == "no":
        assert (await paula.post(f"{path}/refusals", json={"purposes": ["training"]})).status_code == 201
    elif how == "yes":
        await grant(paula, path, "voice")
    elif how == "withdrawal":
        given = await grant(alice, path, "voice", principal=await sub_of(paula))
        assert (await paula.post(f"{location(given)}/withdraw")).status_code == 200


async def sub_of(client: Client) -> str:
    sub: str = (await client.get("/api/v1/me")).json()["sub"]
    return sub


@pytest.fixture
def paula(client_of: ClientOf) -> Client:
    return client_of(f"paula-{uuid4()}")


async def spoken(alice: Client, paula: Client, how: str = "no", **members: Any) -> str:
    """Make a twin on which a person has spoken, and return its path."""
    path = await make_twin(alice, consent=False, principals=[await sub_of(paula)], **members)
    await speak(alice, paula, path, how)
    return path


@pytest.mark.parametrize("how", ["no", "yes", "withdrawal"])
async def test_an_id_never_leaves_a_twin_on_which_a_person_has_spoken(
    alice: Client, paula: Client, context: Context, how: str
) -> None:
    mine, free, later = voice(), voice(), voice()
    path = await spoken(alice, paula, how, external_ids=[mine])
    other = await make_twin(alice, external_ids=[free])
    tag = (await alice.get(other)).headers["etag"]
    assert (await alice.patch(path, json={"external_ids": [mine, later]})).status_code == 200  # or gets later

    for kept in (mine, later):
        assert is_kept(await alice.patch(other, json={"external_ids": [free, kept], "tone": "cold"}), 1)
        assert is_kept(await alice.post("/api/v1/twins", json=ALEX | {"external_ids": [kept]}))
        assert (await alice.get(other)).headers["etag"] == tag
        assert await twin_of(alice, kept) == str(id_of(path))
    # Removed, it comes back to this twin only.
    assert (await alice.patch(path, json={"external_ids": []})).json()["external_ids"] == []
    assert await twin_of(alice, mine) is None
    assert is_kept(await alice.patch(other, json={"external_ids": [mine]}))
    assert (await alice.patch(path, json={"external_ids": [later, mine]})).json()["external_ids"] == [later, mine]
    assert (await alice.patch(path, json={"external_ids": [later]})).status_code == 200
    # And after an erasure to none: while its job runs, and when it is complete.
    url = await erase(alice, path)
    for _ in range(2):
        for kept in (mine, later):
            assert is_kept(await alice.post("/api/v1/twins", json=ALEX | {"external_ids": [kept]}))
            assert await twin_of(alice, kept) is None
        await finish(context, url)
    assert await ids_of(alice, other) == [free]


async def test_an_id_that_another_twin_gives_to_one_with_a_person_is_kept(alice: Client, paula: Client) -> None:
    mine = voice()
    other = await make_twin(alice, external_ids=[mine])
    path = await spoken(alice, paula)
    assert (await alice.patch(path, json={"external_ids": [mine]})).status_code == 200

    assert await ids_of(alice, other) == []
    assert is_kept(await alice.patch(other, json={"external_ids": [mine]}))


async def test_the_owners_own_word_keeps_no_id(alice: Client) -> None:
    mine = voice()
    path = await make_twin(alice, external_ids=[mine], consent=True)
    await grant(alice, path, "voice", principal="paula")
    await alice.patch(path, json={"consent": False})

    assert (await make_twin(alice, external_ids=[mine])) != path


async def test_erasing_the_account_and_coming_back_frees_no_id(
    client_of: ClientOf, paula: Client, context: Context
) -> None:
    alice = client_of(f"alice-{uuid4()}")
    mine, free = voice(), voice()
    await spoken(alice, paula, external_ids=[mine])
    await make_twin(alice, external_ids=[free])
    url = (await alice.delete("/api/v1/me")).headers["location"]
    for _ in range(2):
        assert is_kept(await alice.post("/api/v1/twins", json=ALEX | {"external_ids": [mine]}))
        assert await twin_of(alice, mine) is None
        await finish(context, url)
    path = await make_twin(alice, external_ids=[free])
    assert await twin_of(alice, free) == str(id_of(path))


async def test_while_a_person_speaks_an_id_is_moved_before_or_never(alice: Client, paula: Client) -> None:
    for _ in range(10):
        mine = voice()
        path = await make_twin(alice, external_ids=[mine], principals=[await sub_of(paula)])
        other = await make_twin(alice)
        no, moved = await asyncio.gather(
            paula.post(f"{path}/refusals"), alice.patch(other, json={"external_ids": [mine]})
        )
        assert no.status_code == 201
        assert moved.status_code in (200, 409)
        assert await twin_of(alice, mine) == str(id_of(other if moved.status_code == 200 else path))
        if moved.status_code == 409:
            assert is_kept(moved)


async def test_a_twin_remembers_a_bounded_number_of_ids(alice: Client, paula: Client, stores: Stores) -> None:
    path = await spoken(alice, paula, external_ids=[voice()])
    async with superuser(stores) as connection:
        await connection.execute(
            "INSERT INTO external_ids (digest, twin_id) SELECT sha256(uuid_send(gen_random_uuid())), $1"
            " FROM generate_series(1, 998)",
            id_of(path),
        )
    before = await ids_of(alice, path)
    assert (await alice.patch(path, json={"external_ids": [*before, voice()]})).status_code == 200
    refused = await alice.patch(path, json={"external_ids": [voice()]})
    assert is_problem(refused, 409, "quota-exceeded")
    assert (await alice.patch(path, json={"external_ids": before})).status_code == 200


async def test_an_erased_twin_leaves_the_digest_of_a_kept_id_and_the_certificate_says_so(
    alice: Client, paula: Client, context: Context, stores: Stores
) -> None:
    kept, free = voice(), voice()
    one, two = await spoken(alice, paula, external_ids=[kept]), await make_twin(alice, external_ids=[free])
    for path, left in ((one, 1), (two, 0)):
        url = await erase(alice, path)
        await finish(context, url)
        certificate = await certificate_of(alice, await erasure_of(alice, url))
        assert certificate["removed"]["external_ids"] == 1
        assert certificate["remaining"]["external_ids"] == 0
        digests = {"what": "external_id_digests", "with": "service", "until": None}
        assert (digests in certificate["stays"]) == (left > 0)
        async with owner_of(stores) as connection:
            rows = await connection.fetch("SELECT * FROM external_ids WHERE twin_id = $1", id_of(path))
            assert [set(row.values()) - {None, row["digest"], id_of(path)} for row in rows] == [set()] * left
    assert traces(await dump(stores), kept["id"], free["id"]) == []


# --- An id that was attached after the yes -------------------------------------------------------------------


async def judged(client: Client, external: dict[str, str], **attributes: Any) -> tuple[str, str | None]:
    (item,) = await ask(client, {"external_id": external, "purpose": "voice"} | attributes)
    return item["reason"], item["assurance"]


async def test_an_id_that_was_attached_after_the_yes_is_answered_as_recorded(alice: Client, paula: Client) -> None:
    before, later = voice(), voice()
    sub = await sub_of(paula)
    path = await make_twin(alice, consent=False, principals=[sub], external_ids=[before])
    consent = await grant(paula, path, "voice", expires_at=after(2 * HOUR))
    assert (await alice.patch(path, json={"external_ids": [before, later]})).status_code == 200

    async def seen(external: dict[str, str]) -> list[tuple[str, str | None]]:
        attributes: list[dict[str, Any]] = [{}, {"min_assurance": "link"}, {"principal": sub}, {"modality": "voice"}]
        return [await judged(alice, external, **it) for it in attributes]

    yes = [("granted", "token")] * 4
    low = ("assurance_too_low", "recorded")
    no = [("granted", "recorded"), low, low, ("granted", "recorded")]
    assert (await seen(before), await seen(later)) == (yes, no)
    assert (await alice.get(f"{path}/decision", params={"purpose": "voice"})).json()["assurance"] == "token"
    # The owner's narrower renewal rests on the same yes, and the ledger knows it.
    narrower = await renew(alice, consent, expires_at=after(HOUR))
    assert narrower["assurance"] == "token"
    assert (await seen(before), await seen(later)) == (yes, no)
    assert (await verify(alice, path))["valid"]
    # An id that comes back is attached anew.
    assert (await alice.patch(path, json={"external_ids": [later]})).status_code == 200
    assert (await alice.patch(path, json={"external_ids": [later, before]})).status_code == 200
    assert (await seen(before), await seen(later)) == (no, no)
    # What the person says from now on, they say with all of these in place.
    assert (await paula.post(f"{location(narrower)}/renew", json={"expires_at": after(3 * HOUR)})).status_code == 201
    assert (await seen(before), await seen(later)) == (yes, yes)


async def test_questions_of_both_kinds_are_judged_each_by_itself(alice: Client, paula: Client) -> None:
    path = await make_twin(alice, consent=False, principals=[await sub_of(paula)])
    await grant(paula, path, "voice", modalities=["voice"])
    mine = voice()
    assert (await alice.patch(path, json={"external_ids": [mine]})).status_code == 200
    by_id = {"twin_id": str(id_of(path)), "purpose": "voice"}
    by_name = {"external_id": mine, "purpose": "voice"}
    found = await ask(
        alice,
        by_id | {"modality": "voice"},
        by_name | {"modality": "voice"},
        by_name,
        by_id,
        by_name | {"modality": "voice", "min_assurance": "token"},
        {"external_id": voice(), "modality": "voice"},
    )
    assert [(item["reason"], item["assurance"], "twin_id" in item) for item in found] == [
        ("granted", "token", False),
        ("granted", "recorded", True),
        ("modality_not_covered", "recorded", True),
        ("modality_not_covered", "token", False),
        ("assurance_too_low", "recorded", True),
        ("not_found", None, True),
    ]
    lacking = await alice.post("/api/v1/decisions", json={"items": [by_name | {"recipient_id": "x"}]})
    assert is_problem(lacking, 422, "validation-failed")
    # The person asks with it too, and a stranger does not.
    owner = await sub_of(alice)
    assert [it["reason"] for it in await ask(paula, by_name | {"owner": owner, "modality": "voice"})] == ["granted"]


# --- Attacks -----------------------------------------------------------------------------------------------

KEY = Signing("key")


@pytest.fixture(scope="module", params=FRONTS)
async def members(
    request: pytest.FixtureRequest, environment: dict[str, str]
) -> AsyncIterator[tuple[IssuerServer, httpx.AsyncBaseTransport]]:
    """The application with an issuer of organisations."""
    async with IssuerServer() as issuer:
        issuer.keys = [KEY.jwk()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUTH_ISSUERS", json.dumps([issuer.entry(owner_claim="org_id")]))
            async with front(request.param) as opened:
                yield issuer, opened


async def test_no_other_member_of_the_organisation_moves_it_and_others_name_the_organisation(
    members: tuple[IssuerServer, httpx.AsyncBaseTransport],
) -> None:
    issuer, transport = members
    acme = f"acme-{uuid4()}"

    def member(sub: str, organisation: str | None, scope: str | None = None) -> Client:
        credentials = KEY.sign(issuer.claims(sub, org_id=organisation, scope=scope))
        return Client(
            transport=transport, base_url="http://twins.test", headers={"Authorization": f"Bearer {credentials}"}
        )

    ann, ben, person = member("ann", acme), member("ben", acme), member(f"person-{uuid4()}", None)
    mine = voice()
    me = {"issuer": issuer.url, "subject": (await person.get("/api/v1/me")).json()["subject"]}
    path = await make_twin(ann, consent=False, principals=[me], external_ids=[mine])
    assert (await person.post(f"{path}/refusals", json={"purposes": ["training"]})).status_code == 201

    assert is_kept(await ben.post("/api/v1/twins", json=ALEX | {"external_ids": [mine]}))
    other = await make_twin(ben)
    assert is_kept(await ben.patch(other, json={"external_ids": [mine]}))
    assert (await ben.patch(path, json={"external_ids": []})).status_code == 200
    assert is_kept(await ben.patch(other, json={"external_ids": [mine]}))
    assert (await ben.patch(path, json={"external_ids": [mine]})).status_code == 200
    assert await twin_of(ben, mine) == str(id_of(path))
    # A service names the organisation as answers show it.
    owner = (await ann.get("/api/v1/me")).json()["owner"]
    service = member("service", None, "twins:decide")
    named = {"external_id": mine, "owner": owner}
    assert [item["twin_id"] for item in await ask(service, named)] == [str(id_of(path))]
    for wrong in (acme, {"issuer": issuer.url, "subject": acme}, {"issuer": "x", "organization": acme}):
        assert [item["twin_id"] for item in await ask(service, named | {"owner": wrong})] == [None]
    # Whose token names no organisation owns nothing.
    assert [item["reason"] for item in await ask(member("ann", None), {"external_id": mine})] == ["not_found"]


async def test_the_serving_role_moves_no_kept_id(alice: Client, paula: Client, bob: Client, context: Context) -> None:
    mine, sub = voice(), await sub_of(alice)
    path, other = await spoken(alice, paula, external_ids=[mine]), await make_twin(alice)
    theirs = await make_twin(bob)
    digest = context.external_digest(sub, mine["type"], mine["id"])
    attach = "SELECT problem FROM attach_ids($1, $2, $3, $4, $5)"

    async def attached(twin: UUID, owner: str, *digests: bytes) -> str | None:
        kinds, names = [mine["type"]] * len(digests), [mine["id"]] * len(digests)
        async with context.postgres.connection() as connection:
            problem: str | None = await connection.fetchval(attach, twin, owner, digests, kinds, names)
            return problem

    async with context.postgres.connection() as connection:
        for statement in (
            "UPDATE external_ids SET twin_id = $1 WHERE digest = $2",
            "DELETE FROM external_ids WHERE twin_id <> $1 AND digest = $2",
            "INSERT INTO external_ids (twin_id, digest) VALUES ($1, $2)",
            "UPDATE twins SET spoken = 0 WHERE id = $1 AND $2::bytea IS NOT NULL",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement, id_of(other), digest)
        # Its job removes the ids of erased twins, and of no other.
        assert await connection.fetchval("SELECT remove_external_ids($1)", [id_of(path), id_of(other)]) == 0
    assert await attached(id_of(other), sub, digest) == "kept"
    assert await attached(id_of(theirs), await sub_of(bob), digest) == "kept"
    assert await attached(id_of(theirs), sub, digest) == "not_found"
    assert await attached(UUID(MISSING), sub, digest) == "not_found"
    assert await attached(id_of(path), sub) is None  # removed
    assert await attached(id_of(other), sub, digest) == "kept"
    await erase(alice, path)
    async with context.postgres.connection() as connection:
        assert await connection.fetchval("SELECT remove_external_ids($1)", [id_of(path)]) == 0
    assert await attached(id_of(other), sub, digest) == "kept"
    assert await twin_of(alice, mine) is None
    assert await reason(alice, other) == "granted"
