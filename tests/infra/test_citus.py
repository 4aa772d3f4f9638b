"""infra/citus.sql against the schema: each table has its kind, and the keys that this kind takes."""

from tests.support.citus import SCRIPT, kinds
from tests.support.database import owner_of
from tests.support.stores import Stores


async def test_every_table_is_distributed_local_or_reference(stores: Stores) -> None:
    async with owner_of(stores) as connection:
        rows = await connection.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
    named = [name for names in kinds().values() for name in names]

    assert sorted(named) == sorted({row["name"] for row in rows} - {"alembic_version"})


async def test_each_unique_key_of_a_twins_table_has_the_twin(stores: Stores) -> None:
    async with owner_of(stores) as connection:
        rows = await connection.fetch(
            """
            SELECT indrelid::regclass::text AS table, indexrelid::regclass::text AS index,
                   array_agg(attname::text) AS columns
            FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
            WHERE indisunique GROUP BY indrelid, indexrelid
            """
        )
    distributed = kinds()["distributed"]
    found = [row for row in rows if row["table"] in distributed]

    assert {row["table"] for row in found} == distributed
    assert [
        row["index"] for row in found if ("id" if row["table"] == "twins" else "twin_id") not in row["columns"]
    ] == []


async def test_each_foreign_key_of_a_twins_table_stays_with_its_twin(stores: Stores) -> None:
    async with owner_of(stores) as connection:
        rows = await connection.fetch(
            """
            SELECT conname AS name, conrelid::regclass::text AS table, confrelid::regclass::text AS other,
                   pg_get_constraintdef(oid) AS text
            FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
            """
        )
    made = kinds()
    kept = [row for row in rows if f"DROP CONSTRAINT {row['name']};" not in SCRIPT.read_text()]
    from_twins = [row for row in kept if row["table"] in made["distributed"]]

    assert len(from_twins) > 2
    assert {row["other"] for row in from_twins} <= made["distributed"] | made["reference"]
    assert [row["name"] for row in from_twins if not row["text"].startswith("FOREIGN KEY (twin_id")] == []
    # And no other table refers to a twin's.
    assert [
        row["name"] for row in kept if row["other"] in made["distributed"] - {row["table"]} and row not in from_twins
    ] == []
