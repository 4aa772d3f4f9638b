"""docs/LEDGER.md and its verifier against exports of the running application."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.local import ROOT
from tests.conftest import Client, make_twin
from tests.consent.steps import grant, renew, verify, withdraw
from tests.docs.erasures import certificate_of
from tests.docs.markdown import rows, section, words

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


async def test_an_exported_ledger_verifies_to_the_head_that_the_app_has(alice: Client, tmp_path: Path) -> None:
    path = await _used(alice)

    done = _run(tmp_path, *await _exported(alice, path))

    head = (await verify(alice, path))["head"]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path.rpartition('/')[2]}: 5 events, head {head}\n"


async def test_pages_verify_as_one_ledger(alice: Client, tmp_path: Path) -> None:
    pages = await _exported(alice, await _used(alice), limit=2)

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
    alice: Client, tmp_path: Path, tamper: Callable[[list[Page]], None]
) -> None:
    (page,) = await _exported(alice, await _used(alice))

    tamper(page["items"])
    done = _run(tmp_path, page)

    assert done.returncode == 1
    assert "event 3 is " in done.stderr


async def test_a_forged_event_with_its_hash_made_anew_breaks_the_link(alice: Client, tmp_path: Path) -> None:
    """Its hash is right by itself, but the next event has the old one."""
    (page,) = await _exported(alice, await _used(alice))
    other = await _exported(alice, await _used(alice))

    page["items"][1] = other[0]["items"][1]
    done = _run(tmp_path, page)

    assert done.returncode == 1
    assert done.stdout == ""


async def test_a_cut_end_shows_in_the_head(alice: Client, tmp_path: Path) -> None:
    path = await _used(alice)
    (page,) = await _exported(alice, path)

    page["items"].pop()
    done = _run(tmp_path, page)

    assert "4 events" in done.stdout
    assert (await verify(alice, path))["head"] not in done.stdout


async def test_the_skeleton_in_a_certificate_verifies_and_shows_tampering(alice: Client, tmp_path: Path) -> None:
    certificate = await certificate_of(alice, await _used(alice))
    assert [event["type"] for event in certificate["events"]][-1] == "erased"

    assert _run(tmp_path, certificate).returncode == 0
    without_end = certificate | {"events": certificate["events"][:-1]}
    assert "does not end with event 6" in _run(tmp_path, without_end).stderr
    certificate["events"][2]["at"] = certificate["events"][1]["at"]
    assert "event 4 does not follow event 3" in _run(tmp_path, certificate).stderr


async def test_the_table_has_the_members_of_every_kind_of_event(alice: Client) -> None:
    documented: dict[str, set[str]] = {kind: set() for kind in ("given", "renewed", "withdrawn", "erased")}
    for member, kinds, _ in rows(section("docs/LEDGER.md", "An event")):
        for kind in documented if kinds == "all" else words(kinds):
            documented[kind].add(member.strip("`"))

    certificate = await certificate_of(alice, await _used(alice))

    assert {event["type"]: set(event) for event in certificate["events"]} == documented


async def test_an_event_is_sealed_as_the_recipe_says(alice: Client) -> None:
    """Only the database has the salt, so the HMACs' shape is what a reader can see."""
    (page,) = await _exported(alice, await _used(alice))

    for item in page["items"]:
        assert len(bytes.fromhex(item["event"]["actor"])) == 32
        assert item["event"]["actor"] == page["items"][0]["event"]["actor"]
