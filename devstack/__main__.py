"""The commands of the Makefile: `python -m devstack run|run-functions|token|migrate|demo`."""

import argparse
import os
import sys

from devstack import local
from devstack.bearer import bearer
from devstack.process import StackError
from devstack.run import migrate, run, token_of_provider, write_local_settings
from shared.settings import ConfigurationError

DEFAULT_PORT = 7071
MAX_PORT = 65_535


def main() -> int:
    """Run one command; a problem is one plain message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m devstack")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="serve on real stores (PORT), with OIDC beside an identity provider")
    commands.add_parser("run-functions", help="the same through the Azure Functions worker library (PORT)")
    commands.add_parser("token", help="print a bearer token (SUB, SCOPE), with OIDC by signing in")
    commands.add_parser("migrate", help="migrate the stores")
    commands.add_parser("local-settings", help="write local.settings.json for func start")
    commands.add_parser("demo", help="guided tour of a running app").add_argument("base_url")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is a text file here
    try:
        for name, value in {**local.secrets_of_this_machine(), "ERASURE_SECOND_SWEEP": "1"}.items():
            # An empty variable counts as unset, as it does for the app.
            os.environ[name] = os.environ.get(name) or value
        match arguments.command:
            case "run":
                run("app", _port())
            case "run-functions":
                run("functions", _port())
            case "token":
                make = token_of_provider if os.environ.get("OIDC") else bearer
                print(make(os.environ.get("SUB", ""), os.environ.get("SCOPE", "")))
            case "migrate":
                migrate()
            case "local-settings":
                write_local_settings()
            case "demo":
                from devstack import demo  # noqa: PLC0415 - only the tour needs an HTTP client

                return demo.main(arguments.base_url)
    except (StackError, ConfigurationError, OSError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _port() -> int:
    given = os.environ.get("PORT") or str(DEFAULT_PORT)
    if not (given.isascii() and given.isdigit() and 0 < int(given) <= MAX_PORT):
        raise StackError(f"PORT must be a number from 1 to {MAX_PORT}, not {given!r}")
    return int(given)


if __name__ == "__main__":
    sys.exit(main())
