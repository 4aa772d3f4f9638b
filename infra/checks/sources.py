"""What must hold of the Bicep files themselves, whatever the parameters."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from infra.checks.bicep import Call, Expression, File, Name, parse

_SECRET = re.compile(r"(?i)(secret|password)$|(digest|receipt|signing)key$")


def problems(folder: Path) -> list[str]:
    """Return what is wrong in the templates under a folder.

    Raises:
        BicepSyntaxError: a file cannot be read.
    """
    return [
        f"{path.relative_to(folder)}: {problem}"
        for path in sorted(folder.rglob("*.bicep"))
        for problem in _of(parse(path.read_text(), path.name))
    ]


def _of(file: File) -> Iterator[str]:
    for declaration in [*file.of("param"), *file.outputs.values()]:
        if "description" not in declaration.decorators:
            yield f"{declaration.kind} {declaration.name} has no @description"
    for parameter in file.of("param"):
        if _SECRET.search(parameter.name) and "secure" not in parameter.decorators:
            yield f"param {parameter.name} is not @secure, so its value stays in the deployment's history"
    secure = {found.name for found in file.of("param") if "secure" in found.decorators}
    for output in file.outputs.values():
        for part in _parts(output.value):
            if isinstance(part, Name) and part.name in secure:
                yield f"output {output.name} shows the secret {part.name}"
            if isinstance(part, Call) and part.function.startswith("list"):
                yield f"output {output.name} shows what {part.function} returns, which is keys"


def _parts(expression: object) -> Iterator[Expression]:
    if isinstance(expression, tuple):
        for item in expression:
            yield from _parts(item)
    elif dataclasses.is_dataclass(expression) and not isinstance(expression, type):
        yield expression  # type: ignore[misc]  # every dataclass in the tree is one
        for field in dataclasses.fields(expression):
            yield from _parts(getattr(expression, field.name))
