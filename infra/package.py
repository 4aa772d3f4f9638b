"""`python3.13 infra/package.py`: copy what is deployed to `.local/package`, with its bytecode; publish from there.

A site keeps no bytecode, so that each cold start would compile every module: 110 ms. The bytecode is
`unchecked-hash`, since the build in Azure changes the time stamps by which Python would drop any other. It is
made in a copy: beside the sources Python would go on with it after they have changed.
"""

import compileall
import importlib.util
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".local" / "package"
PYTHON = (3, 13)
"""The version of the site; bytecode of another one is of no use."""
_UNCHECKED = (0b01).to_bytes(4, "little")
"""The flags of bytecode that names its source by a hash, and is used without a look at the source (PEP 552)."""


def build(folder: Path = FOLDER) -> None:
    """Copy and compile; raises `RuntimeError` where a module has no bytecode that a site would use."""
    ignored = (ROOT / ".funcignore").read_text().split()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    compileall.compile_dir(folder, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    for source in folder.rglob("*.py"):
        made = Path(importlib.util.cache_from_source(str(source)))
        if not made.exists() or made.read_bytes()[:8] != importlib.util.MAGIC_NUMBER + _UNCHECKED:
            raise RuntimeError(f"{source.relative_to(folder)} has no bytecode")


def main() -> None:
    """Build, and say where."""
    if sys.version_info[:2] != PYTHON:
        sys.exit("Python {}.{} is needed, which the site runs.".format(*PYTHON))
    build()
    sys.stdout.write(f"{FOLDER.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
