"""docs/LEDGER.md and its verifier against exports of the running application."""

import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.local import ROOT
from tests.docs.erasures import certificate_of
from tests.docs.markdown import prose, rows, section, words
from tests.support.app import Client, ClientOf, id_of, make_twin
from tests.support.consent import HOUR, NOTICE, after, grant, renew, verify, withdraw
from tests.support.database import owner_of
from tests.support.stores import Stores

type Page = dict[str, Any]


def _run(folder: Path, *pages: Page) -> subprocess.CompletedProcess[str]:
    files = [folder / f"{number}.json" for number, _ in enumerate(pages)]
    for file, page in zip(files, pages, strict=True):
        file.write_text(json.dumps(page), encoding="utf-8")
    # Isolated and without site-packages: the standard library is all there is.
    command = [sys.executable, "-I", "-S", "docs/verify_ledger.py", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


async def _used(client: Client) -> str:
    """Make a twin whose ledger has five events of three kinds."""
    path = await make_twin(client)
    voice = await grant(client, path, "voice")
    renewed = await renew(client, voice)
    await withdraw(client, renewed)
    await grant(client, path, "voice")
    return path


async def _exported(client: Client, path: str, limit: int = 100) -> list[Page]:
    pages: list[Page] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        pages.append((await client.get(f"{path}/ledger", params=query)).json())
        cursor = pages[-1]["next_cursor"]
    return pages


def test_the_verifier_is_at_most_forty_lines() -> None:
    assert len((ROOT / "docs/verify_ledger.py").read_text().splitlines()) <= 40


async def test_an_exported_ledger_verifies_to_the_head_that_the_app_has(owner: Client, tmp_path: Path) -> None:
    path = await _used(owner)

    done = _run(tmp_path, *await _exported(owner, path))

    head = (await verify(owner, path))["head"]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{id_of(path)}: 5 events, head {head}\n"


async def test_all_kinds_of_terms_verify(owner: Client, client_of: ClientOf, tmp_path: Path) -> None:
    person = f"person-{uuid4()}"
    path = await make_twin(owner, consent=False, principals=[person])
    limited = {"modalities": ["voice"], "recipients": [{"type": "org", "id": "studio"}], "jurisdiction": "DE"}
    await grant(owner, path, "voice", "face", principal={"label": "Alex"}, **limited)
    own = await grant(client_of(person), path, "voice", **limited)
    await renew(owner, own, modalities=["voice"], expires_at=after(HOUR))

    done = _run(tmp_path, *await _exported(owner, path))
    assert done.stdout == f"{id_of(path)}: 4 events, head {(await verify(owner, path))['head']}\n"


def test_events_of_both_editions_verify_as_one_ledger(tmp_path: Path) -> None:
    items, last, twin_id = list[Page](), "0" * 64, str(uuid4())
    for seq, edition in enumerate((1, 1, 2), start=1):
        event = {"v": edition, "twin_id": twin_id, "seq": seq, "type": "given", "prev_hash": last}
        last = hashlib.sha256(_canonical(event)).hexdigest()
        items.append({"event": event, "hash": last})

    done = _run(tmp_path, {"items": items})
    assert (done.returncode, last in done.stdout) == (0, True), done.stderr


async def test_pages_verify_as_one_ledger(owner: Client, tmp_path: Path) -> None:
    pages = await _exported(owner, await _used(owner), limit=2)

    assert len(pages) == 3
    assert _run(tmp_path, *pages).returncode == 0
    assert "event 3 is missing" in _run(tmp_path, pages[0], pages[2]).stderr


def _actor(items: list[Page]) -> None:
    items[2]["event"]["actor"] = "0" * 64


def _hash(items: list[Page]) -> None:
    items[2]["hash"] = items[1]["hash"]


def _removed(items: list[Page]) -> None:
    del items[2]


def _repeated(items: list[Page]) -> None:
    items.insert(2, items[1])


def _swapped(items: list[Page]) -> None:
    items[2], items[3] = items[3], items[2]


def _member(items: list[Page]) -> None:
    items[2]["event"]["note"] = "added"


@pytest.mark.parametrize("tamper", [_actor, _hash, _removed, _repeated, _swapped, _member])
async def test_the_first_event_that_is_not_right_is_named(
    owner: Client, tmp_path: Path, tamper: Callable[[list[Page]], None]
) -> None:
    (page,) = await _exported(owner, await _used(owner))

    tamper(page["items"])
    done = _run(tmp_path, page)

    assert done.returncode == 1
    assert "event 3 is " in done.stderr


async def test_a_forged_event_with_its_hash_made_anew_breaks_the_link(owner: Client, tmp_path: Path) -> None:
    """Its hash is right by itself, but the next event has the old one."""
    (page,) = await _exported(owner, await _used(owner))

    forged = page["items"][1]
    forged["event"]["consent_id"] = page["items"][0]["event"]["consent_id"]
    forged["hash"] = hashlib.sha256(_canonical(forged["event"])).hexdigest()
    done = _run(tmp_path, page)

    assert done.returncode == 1
    assert "event 3 does not follow event 2" in done.stderr


async def test_a_cut_end_shows_in_the_head(owner: Client, tmp_path: Path) -> None:
    path = await _used(owner)
    (page,) = await _exported(owner, path)

    page["items"].pop()
    done = _run(tmp_path, page)

    assert "4 events" in done.stdout
    assert (await verify(owner, path))["head"] not in done.stdout


async def test_the_skeleton_in_a_certificate_verifies_and_shows_tampering(owner: Client, tmp_path: Path) -> None:
    certificate = await certificate_of(owner, await _used(owner))
    assert [event["type"] for event in certificate["events"]][-1] == "erased"

    assert _run(tmp_path, certificate).returncode == 0
    without_end = certificate | {"events": certificate["events"][:-1]}
    assert "does not end with event 6" in _run(tmp_path, without_end).stderr
    certificate["events"][2]["at"] = certificate["events"][1]["at"]
    assert "event 4 does not follow event 3" in _run(tmp_path, certificate).stderr


async def test_of_a_certificate_without_events_the_heads_are_told_and_that_they_are_all(
    owner: Client, tmp_path: Path
) -> None:
    certificate = await certificate_of(owner, await _used(owner)) | {"events": None}
    done = _run(tmp_path, certificate)

    (ledger,) = certificate["ledgers"]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ledger['twin_id']}: 6 events (which are not in it), head {ledger['head']}\n"
    assert "does not end with event 6" in _run(tmp_path, certificate | {"events": []}).stderr


async def test_the_table_has_the_members_of_every_kind_of_event(owner: Client) -> None:
    documented: dict[str, set[str]] = {
        kind: set() for kind in ("given", "renewed", "replaced", "withdrawn", "refused", "opened", "erased")
    }
    for member, kinds, _ in rows(section("docs/LEDGER.md", "An event")):
        for kind in documented if kinds == "all" else words(kinds):
            documented[kind].add(member.strip("`"))

    path = await make_twin(owner, principals=["docs-owner"], consent=False)
    await grant(owner, path, "text", principal={"label": "Alex"})
    await grant(owner, path, "text")
    await withdraw(owner, await renew(owner, await grant(owner, path, "voice")))
    (refusal,) = (await owner.get(f"{path}/refusals")).json()["items"]
    assert (await owner.post(f"{path}/refusals")).status_code == 200
    assert (await owner.delete(f"{path}/refusals/{refusal['id']}")).status_code == 204
    certificate = await certificate_of(owner, path)

    assert {event["type"]: set(event) for event in certificate["events"]} == documented


async def test_a_revocation_by_the_owner_places_no_lock(owner: Client) -> None:
    path = await make_twin(owner)
    await withdraw(owner, await grant(owner, path, "voice"))
    (page,) = await _exported(owner, path)

    event = page["items"][-1]["event"]
    assert (event["by"], len(event["purposes"]), "lock_id" in event) == ("owner", 1, False)


async def test_events_are_sealed_as_the_recipe_says(owner: Client, stores: Stores) -> None:
    """With the salt, which only the database has, the HMACs can be made from the document alone."""
    path = await make_twin(owner, consent=False)
    consent = await grant(owner, path, "voice", "dubbing", principal="Zoë", expires_at="2100-01-31T13:00:00+01:00")
    (page,) = await _exported(owner, path)
    twin_id = id_of(path)
    async with owner_of(stores) as connection:
        salt = await connection.fetchval(
            "SELECT salt FROM salts WHERE twin_id = $1 AND lineage = $2", twin_id, UUID(consent["id"])
        )
    terms: dict[str, Any] = {
        "expires_at": "2100-01-31T12:00:00.000000Z",
        "method": "api",
        "not_before": None,
        "notice_language": NOTICE["language"],
        "notice_sha256": hashlib.sha256(NOTICE["text"].encode()).hexdigest(),
        "notice_version": NOTICE["version"],
        "principal": "Zoë",
        "purposes": ["dubbing", "voice"],
    }

    (item,) = page["items"]

    assert item["event"]["terms"] == hmac.digest(salt, _canonical(terms), "sha256").hex()
    assert item["event"]["actor"] == hmac.digest(salt, b"docs-owner", "sha256").hex()
    assert item["event"] | {"v": 2, "seq": 1, "prev_hash": "0" * 64, "consent_id": consent["id"]} == item["event"]
    recipe = prose("docs/LEDGER.md")
    assert set(terms) <= set(words(recipe))

    limits = {"modalities": ["voice", "text"], "territories": ["FR", "DE"]}
    studio = {"type": "org", "id": "studio"}
    uses = [{"purpose": "film", "description": "Dubbing."}]
    guardian = {"relation": "mother", "id": {"issuer": "https://id.example", "subject": "mona"}}
    second = {"recipients": [studio], "uses": uses, "guardian": guardian, "principal": {"label": "Alex"}} | limits
    consent = await grant(owner, path, "film", **second)
    async with owner_of(stores) as connection:
        salt = await connection.fetchval(
            "SELECT salt FROM salts WHERE twin_id = $1 AND lineage = $2", twin_id, UUID(consent["id"])
        )
    terms |= {
        "details": {"uses": uses, "relation": "mother"},
        "expires_at": None,
        "guardian": "https://id.example\nmona",
        "label": "Alex",
        "modalities": ["text", "voice"],
        "principal": None,
        "purposes": ["film"],
        "recipients": [studio | {"issuer": None, "name": None}],
        "source": None,
        "territories": ["DE", "FR"],
        "v": 2,
    }
    (page,) = await _exported(owner, path)
    assert page["items"][1]["event"]["terms"] == hmac.digest(salt, _canonical(terms), "sha256").hex()
    assert set(terms) - {"v"} <= set(words(recipe))


def _canonical(value: Page) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
