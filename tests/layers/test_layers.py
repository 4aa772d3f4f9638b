"""What the contracts of import-linter cannot say: words, tables, and a resource's own queries."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.local import ROOT
from migrations.mongo import COLLECTIONS
from tests.support.database import owner_of
from tests.support.stores import Stores

WORDS = re.compile(
    r"\b(twins?|personas?|consents?|consented|ledgers?|erasures?|principals?|receipts?|purposes?)\b",
    re.IGNORECASE,
)
"""The product's words, in any spelling: the words of a name stand between underscores and capitals too.

Owner is none of them: who owns what an account makes, it or its organisation, is said by its token.
"""

ELSEWHERE = {
    ("twins", "twins/locking.py"): "the row lock",
    ("twins", "twins/persona/queries.py"): "a version and its twin's number are written by one statement",
    ("consents", "twins/account/queries.py"): "consents are counted by the owner of their twin",
    ("locks", "twins/consent/queries.py"): "one function removes all that belongs to consents",
    ("erased_accounts", "twins/locking.py"): "the erasure of an account takes all its twins",
    ("erased_accounts", "twins/account/queries.py"): "what an erased account gave counts no more",
    ("idempotency_keys", "twins/account/queries.py"): "answers are counted by the owner of their twin",
}
"""The statements that name another room's table, and why."""


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def statements(path: Path) -> Iterator[str]:
    """Yield the texts of a file that are SQL."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = " ".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
        if re.search(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|FROM|JOIN)\b", text):
            yield text


def tables_of(text: str) -> set[str]:
    """Return the tables, views and functions that a statement reads or writes."""
    return set(re.findall(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:LATERAL\s+)?([a-z_]+)\b", text))


def room_of(path: Path) -> str:
    return str(path.relative_to(ROOT).parent)


ROOM = {
    "sweeps": "twins/persona",
    "personas": "twins/persona",
    "consents": "twins/consent",
    "consent_states": "twins/consent",
    "named_accounts": "twins/consent",
    "notices": "twins/consent",
    "salts": "twins/consent",
    "stops": "twins/consent",
    "withdrawals": "twins/consent",
    "locks": "twins/refusal",
    "consent_events": "twins/ledger",
    "ledger_rounds": "twins/ledger",
    "journal": "twins/journal",
    "journal_entries": "twins/journal",
    "lost_events": "twins/restore",
    "restore_state": "twins/restore",
    "restores": "twins/restore",
    "erased_accounts": "twins/erasure",
    "account_usage": "twins/account",
    "account_consents": "twins/account",
    "external_ids": "twins/twin",
    "erased_consents": "twins/erasure",
    "erased_twins": "twins/erasure",
} | {
    table: room_of(path)
    for path in files("twins", "shared")
    for text in statements(path)
    for table in re.findall(r"\bINSERT INTO ([a-z_]+)\b", text)
}
"""The folder whose SQL may name a table, or whose code a collection: the one that inserts into it.

The rows of the tables that are named here are made by a migration or by functions of the database, and `personas` and
`journal` are collections.
"""


@pytest.mark.parametrize(
    "path", [path for path in (ROOT / "shared").rglob("*") if path.is_file() and path.suffix != ".pyc"], ids=name_of
)
def test_shared_has_no_word_of_the_product(path: Path) -> None:
    # The column of shared tables is the one exception.
    text = path.read_text().replace("twin_id", "")
    spelled_out = re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", text)

    assert WORDS.findall(spelled_out) == []


def test_sql_on_a_table_stands_in_its_room() -> None:
    found = {
        (table, name_of(path))
        for path in files("twins", "shared")
        for text in statements(path)
        for table in tables_of(text) & ROOM.keys()
        if not name_of(path).startswith(f"{ROOM[table]}/")
    }

    assert found == ELSEWHERE.keys()


@pytest.mark.parametrize("path", files("twins", "shared"), ids=name_of)
def test_sql_stands_in_queries_alone(path: Path) -> None:
    if path.name in {"queries.py", "locking.py", "gate.py", "outbox.py", "idempotency.py", "postgres.py"}:
        return

    assert [text for text in statements(path) if tables_of(text)] == []


async def test_every_table_and_collection_has_a_room(stores: Stores) -> None:
    async with owner_of(stores) as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")

    assert {row["tablename"] for row in rows} - {"alembic_version"} | COLLECTIONS.keys() == ROOM.keys()


_USES = re.compile(r"^from twins\.(\w+)(?:\.| import (?:.*\b)?)(?:queries|documents)\b", re.MULTILINE)


def test_a_service_uses_no_queries_but_its_own() -> None:
    uses = [
        (name_of(path), match[1])
        for path in files("twins")
        for match in re.finditer(
            r"^from twins\.(\w+)(?:\.| import (?:.*\b)?)(?:queries|documents)\b", path.read_text(), re.MULTILINE
        )
    ]

    assert uses
    assert [(name, room) for name, room in uses if not name.startswith(f"twins/{room}/")] == []


SIZES = {"twins": 220, "shared": 270}


@pytest.mark.parametrize("path", files(*SIZES), ids=name_of)
def test_a_file_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= SIZES[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("folder", sorted({path.parent for path in files(*SIZES)}), ids=name_of)
def test_every_folder_says_what_is_in_it(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
