"""PostgreSQL's schema: there and back, twice at once, and a serving role that may not change it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from devstack.local import ROOT
from devstack.postgres import OWNER, SERVING, SUPERUSER, binaries
from migrations import postgres
from tests.support.stores import Stores

FIRST = "20261124_1"


@pytest.fixture
async def database(stores: Stores) -> AsyncIterator[str]:
    """The name of an empty database of the owner."""
    name = f"twins_{uuid4().hex[:12]}"
    server = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER, "postgres"))
    await server.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    yield name
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.fixture
def dsn(stores: Stores, database: str) -> str:
    return stores.postgres.dsn_of(OWNER, database)


async def migrate(dsn: str, direction: str, revision: str) -> None:
    # In a thread, where it may run an event loop of its own.
    await asyncio.to_thread(postgres.migrate, dsn, direction, revision)


def schema_of(dsn: str) -> str:
    """Return everything that the schema is made of, privileges included."""
    done = subprocess.run(
        [binaries() / "pg_dump", "--schema-only", "--restrict-key=x", dsn], check=True, capture_output=True, text=True
    )
    return done.stdout


async def query(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
    finally:
        await connection.close()
    return rows


async def test_up_down_and_up_again_gives_the_same_schema(dsn: str) -> None:
    await migrate(dsn, "upgrade", "head")
    there = schema_of(dsn)
    await migrate(dsn, "downgrade", "base")
    nothing = schema_of(dsn)
    await migrate(dsn, "upgrade", "head")

    assert schema_of(dsn) == there
    assert there.count("CREATE TABLE") > 5
    assert nothing.count("CREATE TABLE") == nothing.count("CREATE TABLE public.alembic_version") == 1
    assert not any(made in nothing for made in ("CREATE FUNCTION", "CREATE VIEW", "CREATE TYPE", "CREATE SEQUENCE"))


async def test_each_step_down_is_undone_by_its_step_up(dsn: str) -> None:
    schemas = []
    for revision in (FIRST, "head"):
        await migrate(dsn, "upgrade", revision)
        schemas.append(schema_of(dsn))
    await migrate(dsn, "downgrade", FIRST)

    assert schemas[0] != schemas[1]
    # Down adds a column at the end that up had dropped from the middle, so that lines are compared.
    assert sorted(schema_of(dsn).replace(",\n", "\n").splitlines()) == sorted(
        schemas[0].replace(",\n", "\n").splitlines()
    )
    await migrate(dsn, "upgrade", "head")
    assert schema_of(dsn) == schemas[1]


async def test_a_second_run_changes_nothing(dsn: str) -> None:
    for _ in range(2):
        await migrate(dsn, "upgrade", "head")
        before = schema_of(dsn)

    assert schema_of(dsn) == before


async def test_a_migration_takes_as_long_as_it_takes_whatever_the_database_says(database: str, dsn: str) -> None:
    owner = await asyncpg.connect(dsn)
    for limit in ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "transaction_timeout"):
        await owner.execute(f"ALTER DATABASE {database} SET {limit} = 1")
    await owner.close()

    await migrate(dsn, "upgrade", "head")


async def test_rows_survive_the_way_there_and_back(dsn: str) -> None:
    await migrate(dsn, "upgrade", FIRST)
    columns = "id, owner, twin_name, use_case, tone, consent, version, persona_version, created_at, updated_at"
    before = await query(
        dsn,
        f"""
        INSERT INTO twins (owner, twin_name, use_case, tone, consent, persona_version)
        SELECT 'owner ' || n % 7, 'Twin ' || n, 'support', 'warm', n % 3 = 0, n FROM generate_series(1, 2500) n
        RETURNING {columns}
        """,
    )
    await query(dsn, "INSERT INTO persona_versions SELECT id, persona_version, gen_random_uuid() FROM twins")
    versions = await query(dsn, "SELECT * FROM persona_versions ORDER BY twin_id")
    await migrate(dsn, "upgrade", "head")
    await migrate(dsn, "downgrade", FIRST)

    assert await query(dsn, f"SELECT {columns} FROM twins ORDER BY id") == sorted(before, key=lambda row: row["id"])
    assert await query(dsn, "SELECT * FROM persona_versions ORDER BY twin_id") == versions


async def test_several_migrations_at_once_run_one_after_the_other(stores: Stores, database: str) -> None:
    environment = {
        **stores.environment,
        "MIGRATIONS_POSTGRES_DSN": stores.postgres.dsn_of(OWNER, database),
        "MONGODB_DATABASE": database,
        "PATH": "",
    }
    runs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "migrations", "upgrade", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    errors = [(await run.communicate())[1].decode() for run in runs]

    assert [run.returncode for run in runs] == [0, 0, 0], errors
    (version,) = await query(environment["MIGRATIONS_POSTGRES_DSN"], "SELECT version_num FROM alembic_version")
    assert version["version_num"] > FIRST


async def test_a_migration_that_fails_leaves_what_was_there(dsn: str) -> None:
    await migrate(dsn, "upgrade", FIRST)
    await query(dsn, "CREATE TABLE outbox (mine int)")
    before = schema_of(dsn)
    with pytest.raises(Exception, match="already exists"):
        await migrate(dsn, "upgrade", "head")

    assert schema_of(dsn) == before
    await query(dsn, "DROP TABLE outbox")
    await migrate(dsn, "upgrade", "head")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE EXTENSION pg_stat_statements",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE INDEX ON twins (tone)",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "ALTER TABLE twins ADD COLUMN mine int",
        "ALTER TABLE consent_events DISABLE TRIGGER ALL",
        "ALTER TABLE notices DROP CONSTRAINT notices_sha256",
        "ALTER ROLE twins_serving SUPERUSER",
        "DROP TABLE twins CASCADE",
        "DROP TRIGGER consent_events_append_only ON consent_events",
        "DROP FUNCTION refuse_change() CASCADE",
        "TRUNCATE twins CASCADE",
        "TRUNCATE consent_events",
        "DELETE FROM twins",
        "UPDATE notices SET notice = ''",
        "UPDATE consent_states SET no = NULL",
        "SELECT append_event(id, 'given', 'x', '', now()) FROM twins",
        "UPDATE consents SET method = ''",
        "UPDATE consents SET controller = NULL",
        "UPDATE consent_events SET seq = 0",
        "DELETE FROM consent_events",
        "UPDATE persona_versions SET sha256 = NULL",
        "UPDATE persona_versions SET document_id = gen_random_uuid()",
        "UPDATE erasures SET certificate = '', completed_at = now()",
        "UPDATE erasures SET owner_digest = ''",
        "INSERT INTO erased_accounts (account, digest, erased_at, erasure_id) SELECT 'x', '', now(), id FROM erasures",
        "UPDATE erased_accounts SET account = NULL",
        "DELETE FROM erased_accounts",
        "INSERT INTO erased_twins (twin_id, erasure_id) VALUES (uuidv7(), uuidv7())",
        "UPDATE erased_ledgers SET root = ''",
        "UPDATE salts SET salt = ''",
        "DELETE FROM salts",
        "SELECT place_lock(uuidv7(), 'x', 'none', '{x}', NULL, NULL)",
        "UPDATE restore_state SET epoch = 0",
        "UPDATE restores SET journal = 'lost'",
        "INSERT INTO restores (epoch, closed_by) VALUES (99, 'operator')",
        "SELECT begin_restore('operator')",
        "UPDATE twins SET epoch = 99",
        "DELETE FROM lost_events",
        "DELETE FROM journal_entries",
        "ALTER TABLE consent_events DISABLE TRIGGER consent_events_journal",
        "UPDATE alembic_version SET version_num = 'x'",
        "GRANT twins_owner TO twins_app",
        "SET session_replication_role = replica",
        "SET ROLE twins_owner",
        "COPY twins TO PROGRAM 'cat'",
    ],
)
async def test_the_serving_role_may_not(stores: Stores, environment: dict[str, str], statement: str) -> None:
    connection = await asyncpg.connect(stores.postgres.dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await transaction.rollback()
        await connection.close()


async def test_the_serving_role_owns_nothing_and_is_nobody_special(stores: Stores, environment: dict[str, str]) -> None:
    owned = await query(
        stores.postgres.dsn,
        "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) IN ($1, 'twins_serving')",
        SERVING,
    )
    roles = await query(
        stores.postgres.dsn,
        """
        SELECT rolname, rolcanlogin,
               rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS special
        FROM pg_roles WHERE rolname IN ($1, 'twins_serving') ORDER BY rolname
        """,
        SERVING,
    )

    assert owned == []
    assert [tuple(role) for role in roles] == [(SERVING, True, False), ("twins_serving", False, False)]


async def test_every_constraint_and_index_has_a_name_of_its_own(dsn: str) -> None:
    await migrate(dsn, "upgrade", "head")
    rows = await query(
        dsn,
        """
        SELECT conname AS name, conrelid::regclass::text AS of FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
        UNION ALL
        SELECT indexrelid::regclass::text, indrelid::regclass::text FROM pg_index
        WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        """,
    )

    assert len({row["name"] for row in rows if not row["name"].endswith("_pkey")}) > 10
    for row in rows:
        # What PostgreSQL makes up itself for a check that nobody named ends so.
        assert not row["name"].endswith(("_check", "_check1")), row["name"]
        assert row["name"].startswith((row["of"], "alembic_version")), row["name"]


async def test_what_accounts_store_is_counted_when_the_count_begins(dsn: str) -> None:
    await migrate(dsn, "upgrade", "20261128_7")
    await query(
        dsn,
        """
        INSERT INTO twins (owner, twin_name, use_case, tone)
        SELECT 'owner ' || n % 3, 'Twin ' || n, 'support', 'warm' FROM generate_series(1, 30) n
        """,
    )
    await query(dsn, "UPDATE twins SET persona_version = 2 WHERE owner = 'owner 1'")
    for letter, size in (("a", 1024), ("b", 1025)):
        await query(
            dsn,
            """
            INSERT INTO notices SELECT id, sha256(convert_to(repeat($1, $2::int), 'UTF8')), repeat($1, $2::int)
            FROM twins WHERE owner = 'owner 2'
            """,
            letter,
            size,
        )
    erased = "owner = NULL, twin_name = NULL, use_case = NULL, tone = NULL, erased_at = now()"
    await query(dsn, f"UPDATE twins SET {erased} WHERE owner = 'owner 0' OR twin_name IN ('Twin 1', 'Twin 2')")
    usage = "SELECT * FROM account_usage ORDER BY account"
    for _ in range(2):
        await migrate(dsn, "upgrade", "head")
        counted = [("owner 1", 9, 18, 0), ("owner 2", 9, 0, 9 * 1025)]
        assert [tuple(row) for row in await query(dsn, usage)] == counted
        await migrate(dsn, "downgrade", "20261128_7")
    await migrate(dsn, "upgrade", "head")

    await query(dsn, f"UPDATE twins SET {erased} WHERE twin_name = 'Twin 5'")
    assert tuple((await query(dsn, usage))[1]) == ("owner 2", 8, 0, 8 * 1025)
    await query(dsn, "UPDATE notices SET notice = NULL")
    assert tuple((await query(dsn, usage))[1]) == ("owner 2", 8, 0, 0)
    await query(dsn, f"UPDATE twins SET {erased} WHERE owner IS NOT NULL")
    assert await query(dsn, usage) == []
