"""Bicep files and a parameter file → the resources they would create."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.checks.bicep import (
    Array,
    BicepSyntaxError,
    Call,
    Declaration,
    Expression,
    For,
    If,
    Index,
    Literal,
    Member,
    Name,
    Object,
    Text,
    parse,
)
from infra.checks.functions import call, member, text
from infra.checks.resources import Deployment, Resource, Runtime


def deployment(parameter_file: Path, environment: Mapping[str, str]) -> Deployment:
    """Evaluate the template that a `.bicepparam` file uses, with its parameters.

    `environment` is what `readEnvironmentVariable` reads, so that the result is the same everywhere.

    Raises:
        BicepSyntaxError: a file is outside the subset, or names what is not there.
    """
    given = parse(parameter_file.read_text(), parameter_file.name)
    if given.using is None:
        raise BicepSyntaxError(f"{parameter_file.name}: `using` is missing")
    parameters = {found.name: _constant(found.value, environment) for found in given.of("param")}
    template = _Template(parameter_file.parent / given.using, parameters)
    return Deployment(parameter_file.stem, template.parameters, tuple(template.resources()))


def _constant(expression: Expression | None, environment: Mapping[str, str]) -> Any:
    match expression:
        case Literal(value):
            return value
        case Call("readEnvironmentVariable", (Literal(str(name)), Literal(default))):
            return environment.get(name, default)
    raise BicepSyntaxError(f"{expression} is not a constant that these checks know")


@dataclass(frozen=True)
class _Reference:
    """A resource by its symbolic name: the only one, or one of a loop."""

    declaration: Declaration
    scope: dict[str, Any]

    @property
    def type(self) -> str:
        return self.declaration.detail.partition("@")[0]


class _Template:
    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        self._path = path
        self._file = parse(path.read_text(), path.name)
        self._modules: dict[str, _Template] = {}
        for name in parameters.keys() - {found.name for found in self._file.of("param")}:
            raise self._error(f"there is no parameter {name}")
        self.parameters: dict[str, Any] = {}
        for found in self._file.of("param"):
            self.parameters[found.name] = self._parameter(found, parameters)

    def _error(self, problem: str) -> BicepSyntaxError:
        return BicepSyntaxError(f"{self._path.name}: {problem}")

    def _parameter(self, found: Declaration, given: dict[str, Any]) -> Any:
        if found.name not in given and found.value is None:
            raise self._error(f"no value for parameter {found.name}")
        value = given[found.name] if found.name in given else self._evaluate(found.value, {})
        for options in found.decorators.get("allowed", ()):
            if value not in self._evaluate(options, {}):
                raise self._error(f"{found.name} may not be {value!r}")
        return value

    def resources(self) -> Iterator[Resource]:
        for found in self._file.of("resource"):
            if not found.existing:
                yield from self._expand(found)
        for found in self._file.of("module"):
            yield from self._module(found).resources()

    def _expand(self, found: Declaration) -> Iterator[Resource]:
        loop = found.value if isinstance(found.value, For) else None
        for scope in self._loop(loop, {}) if loop else [{}]:
            body = loop.body if loop else found.value
            if isinstance(body, If):
                if not self._evaluate(body.condition, scope):
                    continue
                body = body.body
            type_, _, version = found.detail.partition("@")
            values = self._evaluate(body, scope)
            target = values.pop("scope", None)
            for metadata in ("parent", "dependsOn"):
                values.pop(metadata, None)
            yield Resource(type_, version, text(values["name"]), values, target and target.type)

    def _module(self, found: Declaration) -> "_Template":
        if found.name not in self._modules:
            parameters = self._evaluate(found.value, {})["params"]
            self._modules[found.name] = _Template(self._path.parent / found.detail, parameters)
        return self._modules[found.name]

    def _output(self, name: str) -> Any:
        if name not in self._file.outputs:
            raise self._error(f"there is no output {name}")
        return self._evaluate(self._file.outputs[name].value, {})

    def _evaluate(  # noqa: C901, PLR0911 - one case for each form of expression
        self, expression: Expression | None, scope: dict[str, Any]
    ) -> Any:
        match expression:
            case Literal(value):
                return value
            case Name(name):
                return self._named(name, scope)
            case Text(parts):
                return "".join(text(self._evaluate(part, scope)) for part in parts)
            case Object(items):
                return {text(self._evaluate(key, scope)): self._evaluate(value, scope) for key, value in items}
            case Array(items):
                return [self._evaluate(item, scope) for item in items]
            case For():
                return [self._evaluate(expression.body, inner) for inner in self._loop(expression, scope)]
            case Call("if", (condition, chosen, other)):
                return self._evaluate(chosen if self._evaluate(condition, scope) else other, scope)
            case Call(function, arguments):
                return call(function, [self._evaluate(argument, scope) for argument in arguments])
            case Index(base, index):
                return self._index(self._evaluate(base, scope), self._evaluate(index, scope))
            case Member(base, name):
                return self._member(self._evaluate(base, scope), name)
        raise self._error(f"{expression} has no value here")

    def _loop(self, loop: For, scope: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index, item in enumerate(self._evaluate(loop.collection, scope)):
            yield {**scope, loop.item: item, **({loop.index: index} if loop.index else {})}

    def _named(self, name: str, scope: dict[str, Any]) -> Any:
        for known in (scope, self.parameters):
            if name in known:
                return known[name]
        found = self._file.declarations.get(name)
        if found is None:
            raise self._error(f"there is no {name}")
        match found.kind:
            case "var":
                return self._evaluate(found.value, {})
            case "module":
                return self._module(found)
        return _Reference(found, {})

    def _index(self, base: Any, index: Any) -> Any:
        if isinstance(base, _Reference) and isinstance(base.declaration.value, For):
            return _Reference(base.declaration, list(self._loop(base.declaration.value, {}))[index])
        return member(base, index)

    def _member(self, base: Any, name: str) -> Any:
        if isinstance(base, _Template):
            return _Outputs(base) if name == "outputs" else None
        if isinstance(base, _Outputs):
            return base.template._output(name)  # noqa: SLF001 - the same class
        if not isinstance(base, _Reference):
            return member(base, name)
        body = base.declaration.value
        if name == "name" and isinstance(body, Object):
            return self._evaluate(dict(body.items)[Literal("name")], base.scope)
        return Runtime(f"{self._path.stem}.{base.declaration.name}.{name}")


@dataclass(frozen=True)
class _Outputs:
    template: _Template
