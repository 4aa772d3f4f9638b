"""What docs/CONSENT.md says of whose word a consent is, step by step."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.docs.markdown import read, rows, section, words
from tests.support.app import Client, is_problem, make_twin
from tests.support.consent import HOUR, NOTICE, after, decide, grant, location, renew, withdraw
from twins.assurance import TOKEN, word_of

NAME = "docs/CONSENT.md"


def _sentences(name: str) -> str:
    """Return the quotation of a document."""
    return " ".join(line.removeprefix("> ") for line in read(name).splitlines() if line.startswith("> "))


def test_the_readme_has_the_same_three_sentences() -> None:
    assert _sentences(NAME) == _sentences("README.md")
    assert _sentences(NAME).count(".") == 3


async def test_the_gate_answers_as_the_table_says(alice: Client, bob: Client) -> None:
    path = await make_twin(alice, consent=False)
    person = await _account(bob)
    made: list[dict[str, Any]] = []

    async def record() -> None:
        made.append(await grant(alice, path, "voice", principal=person))

    async def list_the_person() -> None:
        assert (await alice.patch(path, json={"principals": [person]})).status_code == 200

    async def agree() -> None:
        made.append(await grant(bob, path, "voice"))
        record = (await alice.get(location(made[0]))).json()
        assert (record["state"], record["replaced_by"]) == ("replaced", made[1]["id"])

    async def record_again() -> None:
        for purpose in ("voice", "voice-2"):
            again = {"purposes": [purpose], "notice": NOTICE, "principal": {"label": "Alex"}}
            assert is_problem(await alice.post(f"{path}/consents", json=again), 409, "person-must-consent")

    async def narrow() -> None:
        made.append(await renew(alice, made[1], expires_at=after(HOUR)))
        assert (made[2]["assurance"], made[2]["source"]) == ("token", made[1]["id"])

    async def end() -> None:
        await withdraw(bob, made[2])

    steps: list[Callable[[], Awaitable[None]]] = [record, list_the_person, agree, record_again, narrow, end]
    table = [row for row in rows(section(NAME, "Who records, who confirms")) if row[0].isdigit()]
    for step, (_, _, _, answer, with_token) in zip(steps, table, strict=True):
        await step()
        own = await alice.get(f"{path}/decision", params={"purpose": "voice", "min_assurance": "token"})
        assert _answer(await decide(alice, path, "voice")) == answer, step.__name__
        assert _answer(own.json()) == with_token, step.__name__


async def _account(client: Client) -> str:
    return str((await client.get("/api/v1/me")).json()["actor"])


def _answer(decision: dict[str, Any]) -> str:
    if decision["decision"]:
        return f"yes, `{decision['assurance']}`"
    return f"no, `{decision['reason']}`"


async def test_an_assurance_is_never_raised_or_lowered_by_the_list_of_principals(alice: Client, bob: Client) -> None:
    path = await make_twin(alice, consent=False)
    person = await _account(bob)
    named = await grant(alice, path, "voice", principal=person)
    own = await grant(bob, path, "voice")
    listed = await alice.patch(path, json={"principals": [person]})
    later = await grant(bob, path, "voice")
    await alice.patch(path, json={"principals": []})

    assert listed.status_code == 200
    assert [named["assurance"], own["assurance"], later["assurance"]] == ["recorded", "recorded", "token"]
    assert [(await alice.get(location(one))).json()["assurance"] for one in (own, later)] == ["recorded", "token"]


async def test_the_owner_who_is_the_person_lists_themself(alice: Client) -> None:
    path = await make_twin(alice, consent=True, principals=[await _account(alice)])
    assert (await decide(alice, path))["assurance"] == "token"


def test_the_words_are_those_of_the_api() -> None:
    table = rows(section(NAME, "What each assurance proves"))
    assert [words(first)[0] for first, *_ in table] == [word_of(rank) for rank in range(TOKEN + 1)]
