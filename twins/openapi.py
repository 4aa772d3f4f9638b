"""`python -m twins.openapi`: write docs/openapi.json, or with `--check` fail if the file is not current."""

import json
import sys
from pathlib import Path

from pydantic import SecretStr

from twins.app import create_app
from twins.settings import Settings

FILE = Path(__file__).parent.parent / "docs" / "openapi.json"


def document() -> str:
    """Return the text of docs/openapi.json."""
    placeholder = SecretStr("x" * 32)
    settings = Settings.model_construct(postgres_dsn=placeholder, mongodb_uri=placeholder, digest_key=placeholder)
    return json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] != ["--check"]:
        FILE.write_text(document(), encoding="utf-8")
    elif not FILE.exists() or FILE.read_text(encoding="utf-8") != document():
        sys.exit("docs/openapi.json is not current: run python -m twins.openapi")


if __name__ == "__main__":
    main()
