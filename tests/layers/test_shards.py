"""Each statement on a twin's tables names the twin, so that one shard answers it, or is listed here with the reason."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

import pytest

from devstack.local import ROOT
from tests.support.citus import kinds
from tests.support.database import owner_of
from tests.support.stores import Stores

CROSS_SHARD = {
    "twins/twin/queries.py select_twins": "a list by owner",
    "twins/consent/lists/queries.py scan_given": "/me: what a person gave, on anybody's twins",
    "twins/consent/lists/queries.py scan_of_person": "a list by owner",
    "twins/consent/lists/queries.py select_places": "a list by owner, and /me",
    "twins/consent/lists/queries.py select_people": "an erasure's batch",
    "twins/erasure/people/queries.py select_last_record": "an erasure's batch",
    "twins/erasure/people/queries.py select_keeps": "an erasure's batch",
    "twins/erasure/people/queries.py select_kept_consents": "/me: what a person keeps of anybody's twins",
    "twins/account/queries.py select_account": "/me: counts",
    "twins/twin/queries.py select_twins_named": "a list by owner",
    "twins/decision/queries.py _QUESTIONS": "a batch asks about several twins",
    "twins/decision/queries.py _WHOLE_QUESTIONS": "the same",
    "twins/decision/queries.py _CALLED_QUESTIONS": "the same",
    "twins/twin/queries.py select_twins_called": "a list by owner",
    "twins/ledger/queries.py select_ledgers": "the round of verification goes through all twins",
    "twins/ledger/queries.py select_heads": "an erasure's batch",
    "twins/ledger/queries.py select_events_of_many": "an erasure's batch",
    "twins/persona/queries.py select_kept": "a batch of the sweep of documents",
    "twins/persona/queries.py erase": "an erasure's batch",
    "twins/twin/queries.py remaining": "an erasure's batch",
    "twins/consent/queries.py remaining": "an erasure's batch",
    "twins/persona/queries.py remaining": "an erasure's batch",
    "twins/erasure/queries.py select_erased_twins": "the batches of an erasure",
    "lost_of": "the journal's entries are of all twins: each is looked up by its own keys",
    "restorable_twins": "a restore goes through all twins",
    "accounts_after": "a restore tries all accounts against the digests of those that were erased",
    "erase_account": "whether there is anything of an account",
    "erase_account_twins": "the batches of an account's erasure",
    "naming_twins": "the batches of an account's erasure",
    "left_of_account": "the proof of an account's erasure",
    "remove_consents": "an erasure's batch",
    "twins_named": "a list by owner",
    "consents_of_owner": "a list by owner",
    "remove_external_ids": "an erasure's batch",
    "record_consents": "an erasure's batch",
    "forget_records": "the batches of an account's erasure",
    "left_records": "the proof of an account's erasure",
}

_ONE = r"\$\d+|p_twin|twin|one|NEW\.id|NEW\.twin_id"
"""A value that is one twin: an argument of the statement, or a variable of a function."""
_RELATION = re.compile(
    r"\b(?:FROM|JOIN|UPDATE)\s+(?:ONLY\s+)?([a-z_]+)\b(?!\s*\()"
    r"(?:\s+(?:AS\s+)?(?!(?:ON|SET|WHERE|JOIN|LEFT|CROSS|ORDER|GROUP|LIMIT|FOR|UNION|LOOP|INTO|USING|RETURNING)\b)"
    r"([a-z_]\w*)\b)?",
    re.IGNORECASE,
)


_STATEMENT_END = re.compile(r";|\bTHEN (?=(?:UPDATE|INSERT|DELETE|SELECT|RETURN|PERFORM|IF)\b)")
"""Where a statement of a function ends, or the condition before it."""


@dataclass
class Block:
    """What stands between two parentheses, without what stands in further ones."""

    text: str = ""
    inner: list["Block"] = field(default_factory=list)

    def all(self) -> Iterator["Block"]:
        yield self
        for block in self.inner:
            yield from block.all()


def blocks_of(statement: str) -> Block:
    open_blocks = [Block()]
    for character in statement:
        if character == "(":
            block = Block()
            open_blocks[-1].inner.append(block)
            open_blocks[-1].text += "("
            open_blocks.append(block)
        elif character == ")":
            open_blocks.pop()
            open_blocks[-1].text += ")"
        else:
            open_blocks[-1].text += character
    return open_blocks[0]


def plain(sql: str) -> str:
    """Return SQL without comments and texts, which may hold parentheses and semicolons."""
    return " ".join(re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--[^\n]*", "", sql)).split())


def unnamed(statement: str, keyed: dict[str, str], *, in_view: bool = False) -> set[str]:
    """Return the relations of a statement whose twin it does not name.

    A relation's twin is named where the condition next to the relation, with no OR beside it, says that its key is
    one twin, or the key of another relation whose twin is named. That of a view's first relation is named by the
    statement that reads the view.
    """
    found: dict[str, tuple[str, str, str, bool]] = {}
    for block in blocks_of(statement).all():
        relations = [(name, alias or name) for name, alias in _RELATION.findall(block.text) if name in keyed]
        conditions = re.split(r"\b(?:WHERE|ON)\b", block.text, maxsplit=1)[-1]
        for name, alias in relations:
            found[f"{name} {alias} {len(found)}"] = (name, alias, conditions, len(relations) == 1)
    named = set(list(found)[:1]) if in_view else set[str]()
    while True:
        values = "|".join([_ONE, *(rf"{alias}\.(?:twin_id|id)" for alias in {found[one][1] for one in named})])
        more = {
            one
            for one, (name, alias, conditions, is_alone) in found.items()
            if not re.search(r"\bOR\b", conditions) and _says(conditions, alias, keyed[name], values, is_alone=is_alone)
        } - named
        if not more:
            return {found[one][0] for one in found.keys() - named}
        named |= more


def _says(conditions: str, alias: str, key: str, values: str, *, is_alone: bool) -> bool:
    column = rf"(?:{alias}\.){'?' if is_alone else ''}{key}"
    return bool(
        re.search(rf"(?<![\w.]){column} = (?:{values})(?![\w.(])", conditions)
        or re.search(rf"(?<![\w.$])(?:{values}) = {column}(?![\w.(])", conditions)
    )


@dataclass
class Sql:
    """All statements of the product, and what they read."""

    statements: list[tuple[str, str]]
    """Where each stands, and its text."""
    keyed: dict[str, str]
    """The tables of a twin and the views over them, with the column that says which twin."""
    functions: set[str]
    """The functions that read or write a twin's table."""
    inlined: set[str]
    """Of these, the functions in SQL."""


def known(part: ast.expr, module: ModuleType) -> str:
    """Return a part of a text: as it is written, or what constants and functions of the module make of it."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    try:
        return str(eval(ast.unparse(part.value), vars(module)))
    except NameError:  # a local
        return ""


def in_code() -> Iterator[tuple[str, str]]:
    for path in sorted(path for folder in ("twins", "shared") for path in (ROOT / folder).rglob("*.py")):
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        # And statements that functions use by their names.
        for function in (*functions, *(node for node in tree.body if isinstance(node, ast.Assign))):
            called = ast.unparse(function.targets[0]) if isinstance(function, ast.Assign) else function.name
            name = f"{path.relative_to(ROOT)} {called}"
            inside = {
                id(part) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for part in node.values
            }
            for node in ast.walk(function):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [known(part, module) for part in parts if isinstance(part, ast.Constant | ast.FormattedValue)]
                if id(node) not in inside and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s", " ".join(texts)):
                    yield name, plain(" ".join(texts))


@pytest.fixture
async def sql(stores: Stores) -> Sql:
    async with owner_of(stores) as connection:
        functions = await connection.fetch(
            """
            SELECT proname AS name, prosrc AS body, lanname AS language
            FROM pg_proc JOIN pg_language l ON l.oid = prolang WHERE pronamespace = 'public'::regnamespace
            """
        )
        views = await connection.fetch(
            """
            SELECT relname AS name, pg_get_viewdef(oid, true) AS body FROM pg_class
            WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
            """
        )
    keyed = {table: "id" if table == "twins" else "twin_id" for table in kinds()["distributed"]}
    for _ in views:  # views over views
        keyed |= {
            view["name"]: "id" if view["name"] == "live_twins" else "twin_id"
            for view in views
            if any(name in keyed for name, _ in _RELATION.findall(plain(view["body"])))
        }
    bodies = {row["name"]: plain(row["body"]) for row in functions}
    uses = {name for name, body in bodies.items() if re.search(rf"(?<!\.)\b({'|'.join(keyed)})\b", body)}
    return Sql(
        [
            *in_code(),
            *((name, part.strip()) for name, body in bodies.items() for part in _STATEMENT_END.split(body)),
            *((f"view {view['name']}", plain(view["body"]).rstrip(";")) for view in views),
        ],
        keyed,
        uses,
        {row["name"] for row in functions if row["language"] == "sql"} & uses,
    )


async def test_each_statement_names_its_twin_or_is_listed(sql: Sql) -> None:
    found = {
        name: relations
        for name, text in sql.statements
        if not name.startswith("view ") and (relations := unnamed(text, sql.keyed))
    }

    assert len([name for name, text in sql.statements if _RELATION.search(text)]) > 80
    assert found.keys() == CROSS_SHARD.keys(), found


async def test_each_join_of_a_view_names_the_twin(sql: Sql) -> None:
    views = [(name, text) for name, text in sql.statements if name.startswith("view ")]
    found = {
        name: relations
        for name, text in views
        for part in text.split(" UNION ALL ")
        if (relations := unnamed(part, sql.keyed, in_view=True))
    }

    assert len(views) > 10
    assert found == {}


async def test_each_row_of_a_twin_is_inserted_with_its_twin(sql: Sql) -> None:
    found = [
        (name, table)
        for name, text in sql.statements
        for table, columns in re.findall(r"\bINSERT INTO ([a-z_]+)(?: AS [a-z]+)? ?\(([^)]*)\)", text)
        if table in sql.keyed and table != "twins" and "twin_id" not in columns
    ]
    inserted = {table for _, text in sql.statements for table in re.findall(r"\bINSERT INTO ([a-z_]+)", text)}

    assert found == []
    assert kinds()["distributed"] <= inserted


async def test_no_statement_on_a_twins_tables_calls_a_function_that_reads_them(sql: Sql) -> None:
    """A shard may not ask the cluster. A function in SQL would be inlined after the statement was distributed."""
    found = [
        (name, called)
        for name, text in sql.statements
        if any(table in sql.keyed for table, _ in _RELATION.findall(text))
        for called in re.findall(r"\b([a-z_]+)\s*\(", text)
        if called in sql.functions
    ]

    # In a part of its own, which is answered before the statement is distributed.
    assert found == [("twins/twin/queries.py select_twins_named", "twins_named")]
    assert sql.inlined == set()
    assert {"give_consent", "erase_twins", "is_named"} <= sql.functions


@pytest.mark.parametrize(
    ("statement", "relations"),
    [
        ("SELECT 1 FROM locks WHERE twin_id = $1", set()),
        ("SELECT 1 FROM locks l WHERE l.twin_id = $1 AND (l.id = $2 OR $3)", set()),
        ("UPDATE locks SET opened_at = now() WHERE twin_id = p_twin AND id = p_lock", set()),
        ("SELECT 1 FROM locks l JOIN twins t ON t.id = l.twin_id WHERE l.twin_id = $1", set()),
        (
            "SELECT 1 FROM twins t LEFT JOIN LATERAL (SELECT FROM locks WHERE twin_id = t.id) d ON a WHERE t.id = $1",
            set(),
        ),
        ("SELECT 1 FROM locks", {"locks"}),
        ("SELECT 1 FROM locks WHERE id = $1", {"locks"}),
        ("SELECT 1 FROM locks WHERE id = $1 OR twin_id = $2", {"locks"}),
        ("SELECT 1 FROM locks WHERE (twin_id = $1 OR id = $2)", {"locks"}),
        ("SELECT 1 FROM locks WHERE twin_id = ANY ($1)", {"locks"}),
        ("SELECT 1 FROM locks l JOIN twins t ON t.id = l.twin_id WHERE t.owner = $1", {"locks", "twins"}),
        ("SELECT 1 FROM twins t JOIN locks l ON l.id = $2 WHERE t.id = $1", {"locks"}),
        ("SELECT 1 FROM twins WHERE id = $1 AND EXISTS (SELECT FROM locks l WHERE l.opener = $2)", {"locks"}),
        ("DELETE FROM locks WHERE id IN (SELECT id FROM locks WHERE twin_id = $1)", {"locks"}),
    ],
)
def test_the_check_itself(statement: str, relations: set[str]) -> None:
    assert unnamed(statement, {"locks": "twin_id", "twins": "id"}) == relations


DOCUMENTS = {
    "find_made": "the sweep searches by age",
    "add": "an entry of the journal has the hash of its event as its id",
    "find_after": "the journal is compared by age, over all twins",
    "remove_before": "the journal is forgotten by age",
}
"""The functions on documents that do not name the twin, and why."""


def test_each_query_of_documents_names_the_twin_or_is_listed() -> None:
    methods = {"find", "find_one", "insert_one", "update_one", "delete_many"}
    found = [
        (function.name, call.func.attr, {key.value for key in call.args[0].keys if isinstance(key, ast.Constant)})
        for path in sorted((ROOT / "twins").rglob("documents.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if ast.unparse(call.func.value) == "collection" and isinstance(call.args[0], ast.Dict)
    ]

    assert {method for _, method, _ in found} == methods
    assert {name for name, _, keys in found if "twin_id" not in keys} == DOCUMENTS.keys()
