"""`python -m migrations`: bring both stores to the schema of this code.

Reads MIGRATIONS_POSTGRES_DSN (a role that may create tables and roles; POSTGRES_DSN where unset),
MONGODB_URI and MONGODB_DATABASE from the environment.
"""

import argparse
import asyncio
import os
import sys

from migrations import mongo, postgres


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("upgrade", help="apply what is missing, to both stores")
    upgrade.add_argument("revision", nargs="?", default="head")
    downgrade = commands.add_parser("downgrade", help="take PostgreSQL back to a revision, or to base")
    downgrade.add_argument("revision")
    grant = commands.add_parser("grant", help="let a login role serve")
    grant.add_argument("role")
    grant.add_argument("--entra", action="store_true", help="it is a Microsoft Entra identity: make its role in Azure")
    arguments = parser.parse_args()

    environment = os.environ
    dsn = environment.get("MIGRATIONS_POSTGRES_DSN") or environment.get("POSTGRES_DSN")
    if not dsn:
        sys.exit("Set MIGRATIONS_POSTGRES_DSN or POSTGRES_DSN.")
    if arguments.command == "grant":
        asyncio.run(postgres.grant(dsn, arguments.role, entra=arguments.entra))
        return
    if arguments.command == "upgrade" and not environment.get("MONGODB_URI"):
        sys.exit("Set MONGODB_URI.")
    postgres.migrate(dsn, arguments.command, arguments.revision)
    if arguments.command == "upgrade":
        mongo.ensure(environment["MONGODB_URI"], environment.get("MONGODB_DATABASE") or "twins")


if __name__ == "__main__":
    main()
