"""`/api/v1/twins`: make, read, list, change, delete."""

import asyncio

import httpx
import pytest

from tests.support.app import ALEX, MISSING, Client, ClientOf, id_of, is_problem, make_twin


async def test_the_seeds_own_example_works_with_a_token_and_is_refused_without(alice: Client, anyone: Client) -> None:
    assert (await alice.post("/api/v1/twins", json=ALEX)).status_code == 201
    assert is_problem(await anyone.post("/api/v1/twins", json=ALEX), 401, "unauthorized")


async def test_a_new_twin_is_at_its_location_with_the_same_entity_tag(alice: Client) -> None:
    made = await alice.post("/api/v1/twins", json=ALEX)
    got = await alice.get(made.headers["location"])

    assert got.status_code == 200
    rest = {name: made.json()[name] for name in ("id", "created_at", "updated_at")}
    assert got.json() == made.json() == ALEX | rest | {"principals": [], "external_ids": []}
    assert got.headers["etag"] == made.headers["etag"]
    assert made.headers["location"] == f"/api/v1/twins/{made.json()['id']}"
    assert made.json()["created_at"].endswith("Z")


async def test_another_owner_cannot_tell_a_twin_from_a_missing_one(alice: Client, bob: Client) -> None:
    path = await make_twin(alice)
    missing = f"/api/v1/twins/{MISSING}"

    def seen(answer: httpx.Response) -> tuple[object, ...]:
        body = {k: v for k, v in answer.json().items() if k not in ("instance", "request_id")}
        headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "content-length")}
        return answer.status_code, body, headers

    for method, json in (("GET", None), ("PATCH", {"tone": "x"}), ("DELETE", None)):
        foreign = await bob.request(method, path, json=json)
        assert is_problem(foreign, 404, "not-found")
        assert seen(foreign) == seen(await bob.request(method, missing, json=json))
    assert (await bob.get("/api/v1/twins")).json() == {"items": [], "next_cursor": None}
    assert (await alice.get(path)).json()["tone"] == "professional"


async def test_a_stale_entity_tag_changes_nothing(alice: Client) -> None:
    path = await make_twin(alice)
    first = (await alice.get(path)).headers["etag"]
    changed = await alice.patch(path, json={"tone": "warm"}, headers={"If-Match": first})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first

    for method, json in (("PATCH", {"tone": "cold"}), ("DELETE", None)):
        refused = await alice.request(method, path, json=json, headers={"If-Match": first})
        assert is_problem(refused, 412, "precondition-failed")
    assert (await alice.get(path)).json()["tone"] == "warm"


async def test_a_condition_that_excludes_what_is_there_changes_nothing(alice: Client) -> None:
    path = await make_twin(alice)
    tag = (await alice.get(path)).headers["etag"]

    for method, json in (("PATCH", {"tone": "cold"}), ("DELETE", None)):
        for excluded in ("*", tag, f"W/{tag}"):
            refused = await alice.request(method, path, json=json, headers={"If-None-Match": excluded})
            assert is_problem(refused, 412, "precondition-failed")
    assert (await alice.get(path)).json()["tone"] == "professional"
    assert (await alice.patch(path, json={"tone": "warm"}, headers={"If-None-Match": '"x"'})).status_code == 200


async def test_a_twin_is_never_changed_at_an_earlier_time_than_before(alice: Client) -> None:
    path = await make_twin(alice)
    answers = await asyncio.gather(*(alice.patch(path, json={"tone": f"tone {n}"}) for n in range(20)))

    latest = (await alice.get(path)).json()["updated_at"]
    assert latest == max(answer.json()["updated_at"] for answer in answers)


async def test_of_writers_with_the_same_entity_tag_exactly_one_wins(alice: Client) -> None:
    path = await make_twin(alice)
    tag = (await alice.get(path)).headers["etag"]
    answers = await asyncio.gather(
        *(alice.patch(path, json={"tone": f"tone {n}"}, headers={"If-Match": tag}) for n in range(20))
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19


@pytest.mark.parametrize("name", ["", " ", "\u200b\u200b", "a\nb", "a\u0000b", "a\u202eb", "x" * 101])
async def test_a_name_nobody_could_read_is_refused(alice: Client, name: str) -> None:
    refused = await alice.post("/api/v1/twins", json=ALEX | {"twin_name": name})

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["pointer"] == "#/twin_name"
    assert (await alice.get("/api/v1/twins")).json()["items"] == []


async def test_pages_are_whole_in_order_and_without_repeats(alice: Client) -> None:
    paths = [await make_twin(alice, twin_name=f"Alex {n}") for n in range(7)]
    seen: list[str] = []
    url: str | None = "/api/v1/twins?limit=3"
    while url:
        page = await alice.get(url)
        seen += [twin["id"] for twin in page.json()["items"]]
        link = page.headers.get("link")
        assert (link is None) == (page.json()["next_cursor"] is None)
        url = link.partition(">")[0][1:] if link else None

    assert seen == [str(id_of(path)) for path in reversed(paths)]


async def test_a_cursor_of_another_owner_filter_or_making_is_refused(
    alice: Client, client_of: ClientOf, bob: Client
) -> None:
    for n in range(3):
        await make_twin(alice, twin_name=f"Alex {n}")
    cursor = (await alice.get("/api/v1/twins", params={"limit": 1})).json()["next_cursor"]

    for client, params in (
        (bob, {"cursor": cursor}),
        (alice, {"cursor": cursor, "tone": "warm"}),
        (alice, {"cursor": cursor[:-1] + ("A" if cursor[-1] != "A" else "B")}),
        (alice, {"cursor": "x"}),
        (alice, {"cursor": ""}),
        (alice, {"cursor": "é"}),
    ):
        refused = await client.get("/api/v1/twins", params=params)
        assert is_problem(refused, 422, "validation-failed")
        assert refused.json()["errors"][0]["parameter"] == "cursor"


# --- Reading again -------------------------------------------------------------------------------

"""Well-formed, and nobody's."""


async def test_an_unchanged_twin_is_not_sent_again(alice: Client) -> None:
    path = await make_twin(alice)
    tag = (await alice.get(path)).headers["etag"]

    for header in (tag, f"W/{tag}", "*", f'"x", {tag}'):
        unchanged = await alice.get(path, headers={"If-None-Match": header})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
        assert unchanged.headers["cache-control"] == "private, no-cache"
        assert "content-type" not in unchanged.headers
    await alice.patch(path, json={"tone": "warm"})
    assert (await alice.get(path, headers={"If-None-Match": tag})).json()["tone"] == "warm"


async def test_a_read_is_held_to_if_match(alice: Client) -> None:
    path = await make_twin(alice)
    await alice.put(f"{path}/persona", json={})
    for url in (path, f"{path}/persona"):
        tag = (await alice.get(url)).headers["etag"]
        for stale in ('"x"', f"W/{tag}"):
            assert is_problem(await alice.get(url, headers={"If-Match": stale}), 412, "precondition-failed")
            # If-Match comes first (RFC 9110 §13.2.2).
            both = {"If-Match": stale, "If-None-Match": tag}
            assert is_problem(await alice.get(url, headers=both), 412, "precondition-failed")
        for current in (tag, "*", f'"x", {tag}'):
            assert (await alice.get(url, headers={"If-Match": current})).status_code == 200
        assert (await alice.get(url, headers={"If-Match": tag, "If-None-Match": tag})).status_code == 304


async def test_a_missing_twin_is_missing_whatever_the_condition(alice: Client) -> None:
    for headers in ({"If-None-Match": "*"}, {"If-Match": "*"}):
        for method in ("GET", "PATCH", "DELETE"):
            body = {"tone": "x"} if method == "PATCH" else None
            answer = await alice.request(method, f"/api/v1/twins/{MISSING}", json=body, headers=headers)
            assert is_problem(answer, 404, "not-found")


@pytest.mark.parametrize("condition", ["", "x", '"x', "W/x", '"a" "b"', '*,"a"', '"é"x', "x" * 1001])
async def test_a_condition_that_cannot_be_read_is_refused_not_ignored(alice: Client, condition: str) -> None:
    path = await make_twin(alice)
    for method, name in (("GET", "If-None-Match"), ("GET", "If-Match"), ("PATCH", "If-Match"), ("DELETE", "If-Match")):
        body = {"tone": "x"} if method == "PATCH" else None
        answer = await alice.request(method, path, json=body, headers={name.encode(): condition.encode()})
        assert is_problem(answer, 422, "validation-failed"), method
        assert answer.json()["errors"][0]["header"].lower() == name.lower()
    assert (await alice.get(path)).json()["tone"] == "professional"


async def test_a_star_matches_what_is_there_and_a_weak_tag_does_not(alice: Client) -> None:
    path = await make_twin(alice)
    tag = (await alice.get(path)).headers["etag"]

    weak = await alice.patch(path, json={"tone": "x"}, headers={"If-Match": f"W/{tag}"})
    assert is_problem(weak, 412, "precondition-failed")
    star = await alice.patch(path, json={"tone": "y"}, headers={"If-Match": "*"})
    assert star.json()["tone"] == "y"
    assert (await alice.delete(path, headers={"If-Match": f'"x", {star.headers["etag"]}'})).status_code == 204


# --- Changing ------------------------------------------------------------------------------------


async def test_a_patch_changes_what_it_names_and_nothing_else(alice: Client) -> None:
    path = await make_twin(alice)
    before = (await alice.get(path)).json()
    patched = await alice.patch(path, json={"twin_name": " Zoe\u0308 ", "tone": "warm"})

    assert patched.status_code == 200
    after = patched.json()
    assert after == before | {"twin_name": "Zo\xeb", "tone": "warm", "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert (await alice.get(path)).json() == after


async def test_a_patch_that_changes_nothing_leaves_the_entity_tag(alice: Client) -> None:
    path = await make_twin(alice)
    before = await alice.get(path)
    for change in ({}, {"tone": "professional"}, {"tone": " professional "}, {"consent": True}):
        same = await alice.patch(path, json=change)
        assert same.status_code == 200
        assert same.headers["etag"] == before.headers["etag"]
        assert same.json() == before.json()


async def test_consent_is_given_and_withdrawn_by_patch_and_each_shows_in_the_entity_tag(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    answers = [await alice.patch(path, json={"consent": consent}) for consent in (True, False, True)]

    assert [answer.json()["consent"] for answer in answers] == [True, False, True]
    assert len({answer.headers["etag"] for answer in answers}) == 3
    assert (await alice.get(path)).json()["consent"] is True


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"tone": None}, "#/tone"),
        ({"consent": None}, "#/consent"),
        ({"twin_name": ""}, "#/twin_name"),
        ({"consent": "true"}, "#/consent"),
        ({"consent": 1}, "#/consent"),
        ({"tone": 7}, "#/tone"),
        ({"tone": ["warm"]}, "#/tone"),
        ({"id": MISSING}, "#/id"),
        ({"owner": "mallory"}, "#/owner"),
        ({"version": 9}, "#/version"),
        ({"tone": "warm", "nope": 1}, "#/nope"),
    ],
)
async def test_a_patch_that_does_not_fit_changes_nothing(
    alice: Client, change: dict[str, object], pointer: str
) -> None:
    path = await make_twin(alice)
    before = (await alice.get(path)).json()
    refused = await alice.patch(path, json=change)

    assert is_problem(refused, 422, "validation-failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert (await alice.get(path)).json() == before


async def test_a_body_is_judged_before_it_is_told_whether_the_twin_exists(alice: Client) -> None:
    assert is_problem(await alice.patch(f"/api/v1/twins/{MISSING}", json={"tone": None}), 422, "validation-failed")
    assert is_problem(await alice.patch(f"/api/v1/twins/{MISSING}", json={}), 404, "not-found")


async def test_patches_at_once_lose_no_change(alice: Client) -> None:
    path = await make_twin(alice)
    answers = await asyncio.gather(
        *(alice.patch(path, json={member: f"{member} {n}"}) for n in range(5) for member in ("tone", "use_case"))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["etag"] for answer in answers}) == 10
    twin = (await alice.get(path)).json()
    assert twin["tone"].startswith("tone ")
    assert twin["use_case"].startswith("use_case ")


# --- Making --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"twin_name": 7},
        {"twin_name": None},
        {"twin_name": ["Alex"]},
        {"consent": "true"},
        {"consent": 1},
        {"consent": None},
        {"use_case": "x" * 201},
        {"tone": "\u3164"},
        {"tone": "a\tb"},
        {"unknown": 1},
        {"id": MISSING},
        {"owner": "mallory"},
    ],
)
async def test_a_twin_that_does_not_fit_is_not_made(alice: Client, change: dict[str, object]) -> None:
    refused = await alice.post("/api/v1/twins", json=ALEX | change)

    assert is_problem(refused, 422, "validation-failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == [f"#/{next(iter(change))}"]
    assert (await alice.get("/api/v1/twins")).json()["items"] == []


@pytest.mark.parametrize("member", list(ALEX))
async def test_every_member_is_needed(alice: Client, member: str) -> None:
    sent = {name: value for name, value in ALEX.items() if name != member}
    refused = await alice.post("/api/v1/twins", json=sent)

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"] == [{"pointer": f"#/{member}", "detail": "is required"}]


@pytest.mark.parametrize(
    "name", ["Zoë", "x" * 100, "🚲" * 100, "0", "👩\u200d🚀", "o'Neil; DROP TABLE twins --", "<script>", "%_\\", "{}$1"]
)
async def test_a_name_comes_back_as_it_was_sent(alice: Client, name: str) -> None:
    path = await make_twin(alice, twin_name=name)

    assert (await alice.get(path)).json()["twin_name"] == name


async def test_a_twin_without_consent_is_a_twin(alice: Client) -> None:
    assert (await alice.get(await make_twin(alice, consent=False))).json()["consent"] is False


# --- Deleting ------------------------------------------------------------------------------------


async def test_a_deleted_twin_is_gone_everywhere_at_once(alice: Client) -> None:
    path, other = await make_twin(alice), await make_twin(alice, twin_name="Bo")
    await alice.put(f"{path}/persona", json={"summary": "Sells bicycles."})
    deleted = await alice.delete(path)

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "content-type" not in deleted.headers
    for method, below, json in (
        ("GET", "", None),
        ("PATCH", "", {"tone": "x"}),
        ("GET", "/persona", None),
        ("PUT", "/persona", {}),
        ("GET", "/persona/versions", None),
        ("GET", "/persona/versions/1", None),
        ("POST", "/persona/versions/1/restore", None),
        ("GET", "/persona/prompt", None),
        ("GET", "/persona/diff?from=1&to=1", None),
    ):
        assert is_problem(await alice.request(method, path + below, json=json), 404, "not-found"), below
    assert [f"/api/v1/twins/{twin['id']}" for twin in (await alice.get("/api/v1/twins")).json()["items"]] == [other]


async def test_all_deletions_at_once_lead_to_one_erasure(alice: Client) -> None:
    path = await make_twin(alice)
    answers = await asyncio.gather(*(alice.delete(path) for _ in range(8)))

    assert {answer.status_code for answer in answers} == {204}
    assert len({answer.headers["location"] for answer in answers}) == 1


# --- Listing -------------------------------------------------------------------------------------


async def names(client: Client, **params: object) -> list[str]:
    answer = await client.get("/api/v1/twins", params=params)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [twin["twin_name"] for twin in answer.json()["items"]]


async def test_part_of_a_name_is_found_in_any_case_of_any_language(alice: Client) -> None:
    for name in ("Straße", "ΣΊΣΥΦΟΣ", "İstanbul", "Ångström", "Élodie", "Анна"):
        await make_twin(alice, twin_name=name)

    for q, found in (
        ("STRASSE", ["Straße"]),
        ("straß", ["Straße"]),
        ("σίσυφος", ["ΣΊΣΥΦΟΣ"]),
        ("ångSTRÖM", ["Ångström"]),
        ("a\u030ang", ["Ångström"]),
        ("ÉLO", ["Élodie"]),
        ("elo", []),
        ("анн", ["Анна"]),
        ("STANBUL", ["İstanbul"]),
    ):
        assert await names(alice, q=q) == found, q


async def test_a_search_takes_every_character_for_itself(alice: Client) -> None:
    for name in ("100% Alex", "under_score", "back\\slash", "plain", "quo'te", "a.c", "[a-z]*"):
        await make_twin(alice, twin_name=name)

    for q, found in (
        ("%", ["100% Alex"]),
        ("_", ["under_score"]),
        ("\\", ["back\\slash"]),
        ("'", ["quo'te"]),
        (".", ["a.c"]),
        ("[a", ["[a-z]*"]),
        ("p_ain", []),
        ("%a%", []),
        ("pl", ["plain"]),
        ("nothing", []),
    ):
        assert await names(alice, q=q) == found, q


async def test_filters_are_exact_and_narrow_together(alice: Client) -> None:
    await make_twin(alice, twin_name="A", use_case="support", tone="warm", consent=True)
    await make_twin(alice, twin_name="B", use_case="support", tone="Warm", consent=False)
    await make_twin(alice, twin_name="C", use_case="support desk", tone="warm", consent=True)

    assert await names(alice, use_case="support") == ["B", "A"]
    assert await names(alice, use_case=" support ") == ["B", "A"]
    assert await names(alice, tone="warm") == ["C", "A"]
    assert await names(alice, consent="true") == ["C", "A"]
    assert await names(alice, consent="false") == ["B"]
    assert await names(alice, use_case="support", tone="warm", consent="true", q="a") == ["A"]
    assert await names(alice, use_case="suppor%") == []


async def test_filters_hold_from_page_to_page(alice: Client) -> None:
    for n in range(6):
        await make_twin(alice, twin_name=f"Alex {n}", tone="warm" if n % 2 else "cold")
    first = await alice.get("/api/v1/twins", params={"tone": "warm", "limit": 2, "q": "alex"})
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    second = await alice.get(link.partition(">")[0][1:])

    assert [twin["twin_name"] for twin in first.json()["items"]] == ["Alex 5", "Alex 3"]
    assert [twin["twin_name"] for twin in second.json()["items"]] == ["Alex 1"]
    assert second.json()["next_cursor"] is None
    assert "link" not in second.headers


async def test_pages_stay_whole_while_twins_come_and_go(alice: Client) -> None:
    paths = [await make_twin(alice, twin_name=f"Alex {n}") for n in range(5)]
    first = (await alice.get("/api/v1/twins", params={"limit": 2})).json()
    await make_twin(alice, twin_name="Newer")
    await alice.delete(paths[3])  # the last of the first page
    second = (await alice.get("/api/v1/twins", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [twin["twin_name"] for twin in first["items"] + second["items"]] == ["Alex 4", "Alex 3", "Alex 2", "Alex 1"]


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x", "", "1e1", "99999999999999999999"])
async def test_a_page_has_from_1_to_100_items(alice: Client, limit: str) -> None:
    refused = await alice.get("/api/v1/twins", params={"limit": limit})

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["parameter"] == "limit"
    for allowed in ("1", "100"):
        assert (await alice.get("/api/v1/twins", params={"limit": allowed})).status_code == 200


@pytest.mark.parametrize("name", ["q", "use_case", "tone"])
@pytest.mark.parametrize("value", ["", "%20", "%00", "%E2%80%8B", "x" * 201, "%0A", "%FF%00"])
async def test_a_filter_that_no_twin_could_have_is_refused(alice: Client, name: str, value: str) -> None:
    refused = await alice.get(f"/api/v1/twins?{name}={value}")

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["parameter"] == name


async def test_twenty_twins_are_a_page_where_no_limit_is_given(alice: Client) -> None:
    await asyncio.gather(*(make_twin(alice) for _ in range(21)))

    assert len(await names(alice)) == 20
    assert len(await names(alice, limit=100)) == 21
