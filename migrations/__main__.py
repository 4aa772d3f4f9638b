"""`python -m migrations`: bring both stores to the schema of this code, and confirm a restore.

Reads MIGRATIONS_POSTGRES_DSN (a role that may create tables and roles; POSTGRES_DSN where unset),
MONGODB_URI and MONGODB_DATABASE from the environment, and JOURNAL_RETENTION_DAYS after a restore.
"""

import argparse
import asyncio
import logging
import os
import sys
from uuid import UUID

import asyncpg

from migrations import roles


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("upgrade", help="apply the missing revisions to both stores")
    upgrade.add_argument("revision", nargs="?", default="head")
    downgrade = commands.add_parser("downgrade", help="take PostgreSQL back to a revision, or to base")
    downgrade.add_argument("revision")
    grant = commands.add_parser("grant", help="let a login role serve")
    grant.add_argument("role")
    grant.add_argument("--entra", action="store_true", help="the role is a Microsoft Entra identity: make it in Azure")
    restored = commands.add_parser("restored", help="after a restore: close the gate until nothing is missing")
    which = restored.add_mutually_exclusive_group()
    which.add_argument(
        "--journal", metavar="URI", help="the MongoDB with the journal that counts: the running or newest"
    )
    which.add_argument("--journal-lost", action="store_true", help="there is none: open once the ledgers verify")
    which.add_argument("--open", metavar="TWIN_ID", type=UUID, nargs="+", help="open these twins, on your word")
    arguments = parser.parse_args()

    environment = os.environ
    dsn = environment.get("MIGRATIONS_POSTGRES_DSN") or environment.get("POSTGRES_DSN")
    if not dsn:
        sys.exit("Set MIGRATIONS_POSTGRES_DSN or POSTGRES_DSN.")
    if arguments.command == "grant":
        try:
            asyncio.run(roles.grant(dsn, arguments.role, entra=arguments.entra))
        except asyncpg.InsufficientPrivilegeError as error:
            sys.exit(f"{error}\nSee docs/DEPLOY.md, step 3.")
        return
    if arguments.command in ("upgrade", "restored") and not environment.get("MONGODB_URI"):
        sys.exit("Set MONGODB_URI.")
    database = environment.get("MONGODB_DATABASE") or "twins"
    if arguments.command == "restored":
        _restored(dsn, environment["MONGODB_URI"], database, arguments)
        return
    from migrations import mongo, postgres  # noqa: PLC0415 - Alembic takes longer to import than a grant takes

    postgres.migrate(dsn, arguments.command, arguments.revision)
    if arguments.command == "upgrade":
        mongo.ensure(environment["MONGODB_URI"], database)


def _restored(dsn: str, uri: str, database: str, arguments: argparse.Namespace) -> None:
    from migrations import restored  # noqa: PLC0415 - the driver of MongoDB takes longer to import than a grant takes

    logging.basicConfig(format="%(message)s")
    if arguments.open:
        print(asyncio.run(restored.open_twins(dsn, arguments.open)))
        return
    kept = float(os.environ.get("JOURNAL_RETENTION_DAYS") or 60)
    which = {"journal": arguments.journal, "is_lost": arguments.journal_lost, "kept_days": kept}
    try:
        print(restored.restored(dsn, uri, database, **which))
    except restored.UndecidedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
