"""Check that the requirement files match pyproject.toml: `python -m devstack.lock`.

Needs no network: the installed packages, which are the pinned ones, name their own requirements.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from devstack.local import ROOT


def stale(root: Path = ROOT) -> list[str]:
    """Return each difference between the requirement files of `root` and its pyproject.toml.

    Only requirements of this platform are compared, no pins for other platforms.
    """
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    project = pyproject["project"]
    runtime = project["dependencies"]
    groups = pyproject["dependency-groups"]
    dev = [*runtime, *project["optional-dependencies"]["migrate"], *groups["dev"]]
    files = {
        "requirements.txt": runtime,
        "requirements-dev.txt": dev,
        "requirements-test.txt": [*dev, *groups["test"]],
    }
    return [
        f"{file}: {problem}" for file, wanted in files.items() for problem in _differences(wanted, _pins(root / file))
    ]


def _pins(file: Path) -> dict[NormalizedName, str]:
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    pins = (Requirement(line) for line in lines if line)
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def _differences(wanted: Iterable[str], pins: dict[NormalizedName, str]) -> Iterator[str]:
    needed: set[tuple[NormalizedName, str]] = set()
    queue = [("pyproject.toml", Requirement(line), "") for line in wanted]
    while queue:
        asker, requirement, extra = queue.pop()
        # A marker that asks for an extra needs a value for it.
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        pin = pins.get(name)
        if pin is None:
            yield f"{name} is missing, which {asker} requires"
            continue
        if not requirement.specifier.contains(pin, prereleases=True):
            yield f"{name}=={pin} is not what {asker} requires: {requirement.specifier}"
        for wanted_extra in {"", *requirement.extras}:
            if (name, wanted_extra) not in needed:
                needed.add((name, wanted_extra))
                queue += [(name, line, wanted_extra) for line in _requirements(name, pin)]
    for name in sorted(pins.keys() - {name for name, _ in needed}):
        yield f"{name} is pinned, and nothing requires it"


def _requirements(name: NormalizedName, pin: str) -> list[Requirement]:
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name}=={pin} is pinned and not installed: remove .venv and start again") from None
    if package.version != pin:
        raise SystemExit(f"{name}=={pin} is pinned, {package.version} installed: remove .venv and start again")
    return [Requirement(line) for line in package.requires or ()]


if __name__ == "__main__":
    if problems := stale():
        sys.exit("\n".join([*problems, "The requirement files are stale: make lock"]))
