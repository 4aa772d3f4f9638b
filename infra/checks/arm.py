"""A compiled template (ARM JSON) and its parameters → the resources they would create.

Understands what `bicep build` writes for these templates: nested deployments, conditions, loops over
resources and properties, and both resource lists (by position, by symbolic name). Reference:
https://learn.microsoft.com/azure/azure-resource-manager/templates/syntax
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.checks.functions import call, member
from infra.checks.resources import Deployment, Resource, Runtime

_TOKEN = re.compile(r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[()\[\].,]))")
_MODULE = "Microsoft.Resources/deployments"


class ArmError(Exception):
    """The template is not of the form that the Bicep compiler writes."""


def deployment(label: str, template: dict[str, Any], parameters: dict[str, Any]) -> Deployment:
    """Evaluate a compiled template with a compiled parameter file.

    Raises:
        ArmError: it has a form that these checks do not know.
    """
    given = {name: entry["value"] for name, entry in parameters["parameters"].items()}
    compiled = _Template(template, given)
    return Deployment(label, compiled.parameters, tuple(compiled.resources()))


class _Template:
    def __init__(self, source: dict[str, Any], given: dict[str, Any]) -> None:
        self._source = source
        self._modules: dict[str, _Template] = {}
        self.parameters: dict[str, Any] = {}
        for name, entry in source.get("parameters", {}).items():
            if name in given:
                self.parameters[name] = given[name]
            elif "defaultValue" in entry:
                self.parameters[name] = self.value(entry["defaultValue"], {})
            else:
                raise ArmError(f"no value for parameter {name}")

    def _entries(self) -> Iterator[tuple[str, dict[str, Any], dict[str, int]]]:
        """Yield each resource that is made: its symbolic name, its source, its place in each loop."""
        resources = self._source["resources"]
        named = resources.items() if isinstance(resources, dict) else enumerate(resources)
        for symbol, entry in named:
            copy = entry.get("copy")
            for index in range(self.value(copy["count"], {})) if copy else (None,):
                loops = {} if index is None else {copy["name"]: index, "": index}
                if not entry.get("existing") and self.value(entry.get("condition", True), loops):
                    yield str(symbol), entry, loops

    def resources(self) -> Iterator[Resource]:
        for _, entry, loops in self._entries():
            if entry["type"] == _MODULE:
                yield from self._module(self.value(entry["name"], loops), entry, loops).resources()
                continue
            body = self.value({key: value for key, value in entry.items() if key != "copy"}, loops)
            body["name"] = body["name"].rpartition("/")[2]
            scope = body.pop("scope", None)
            yield Resource(body.pop("type"), body.pop("apiVersion"), body["name"], body, scope and _type_of(scope))

    def _module(self, name: str, entry: dict[str, Any], loops: dict[str, int]) -> "_Template":
        if name not in self._modules:
            properties = entry["properties"]
            given = {
                key: self.value(argument["value"], loops) for key, argument in properties.get("parameters", {}).items()
            }
            self._modules[name] = _Template(properties["template"], given)
        return self._modules[name]

    def outputs(self) -> Mapping[str, Any]:
        return _Outputs(self)

    def output(self, name: str) -> Any:
        return self.value(self._source["outputs"][name]["value"], {})

    def value(self, source: Any, loops: dict[str, int]) -> Any:
        """Evaluate a JSON value, expressions in it included."""
        if isinstance(source, dict):
            values = {self.value(key, loops): self.value(item, loops) for key, item in source.items() if key != "copy"}
            for copy in source.get("copy", []):
                values[copy["name"]] = [
                    self.value(copy["input"], {**loops, copy["name"]: index})
                    for index in range(self.value(copy["count"], loops))
                ]
            return values
        if isinstance(source, list):
            return [self.value(item, loops) for item in source]
        if isinstance(source, str) and source.startswith("[") and source.endswith("]"):
            return source[1:] if source.startswith("[[") else _Expression(self, source[1:-1], loops).whole()
        return source

    def named(self, function: str, arguments: list[Any], loops: dict[str, int]) -> Any:
        """Call a function that depends on the template; others are in `functions`."""
        match function, arguments:
            case "parameters", [name]:
                return self.parameters[name]
            case "variables", [name]:
                variables = self._source["variables"]
                return self.value(variables, {})[name] if name not in variables else self.value(variables[name], {})
            case "copyIndex", names:
                return loops[names[0] if names else ""]
            case "resourceId" | "extensionResourceId", [*parts]:
                return _resource_id([str(part) for part in parts])
            case "reference", [target, *_]:
                return self._reference(str(target))
        return call(function, arguments)

    def _reference(self, target: str) -> Any:
        for symbol, entry, loops in self._entries():
            if entry["type"] == _MODULE:
                name = self.value(entry["name"], loops)
                if target == symbol or target.endswith(f"/{_MODULE}/{name}"):
                    return {"outputs": self._module(name, entry, loops).outputs()}
        return Runtime(f"reference({target})")


class _Outputs(Mapping[str, Any]):
    """The outputs of a nested deployment, each evaluated when it is asked for."""

    def __init__(self, template: _Template) -> None:
        self._template = template

    def __getitem__(self, name: str) -> dict[str, Any]:
        return {"value": self._template.output(name)}

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _resource_id(parts: list[str]) -> str:
    kind = next(index for index, part in enumerate(parts) if "." in part and "/" in part and " " not in part)
    namespace, *types = parts[kind].split("/")
    pairs = [piece for pair in zip(types, parts[kind + 1 :], strict=True) for piece in pair]
    return "/".join(["/subscriptions/s/resourceGroups/g/providers", namespace, *pairs])


def _type_of(resource_id: str) -> str:
    namespace, *pieces = resource_id.rpartition("providers/")[2].split("/")
    return "/".join([namespace, *pieces[::2]])


class _Expression:
    def __init__(self, template: _Template, source: str, loops: dict[str, int]) -> None:
        self._template, self._source, self._loops, self._at = template, source, loops, 0

    def whole(self) -> Any:
        value = self._value()
        if self._source[self._at :].strip():
            raise ArmError(f"cannot read [{self._source}]")
        return value

    def _token(self) -> re.Match[str]:
        match = _TOKEN.match(self._source, self._at)
        if match is None:
            raise ArmError(f"cannot read [{self._source}]")
        self._at = match.end()
        return match

    def _next_is(self, mark: str) -> bool:
        match = _TOKEN.match(self._source, self._at)
        if match is None or match["mark"] != mark:
            return False
        self._at = match.end()
        return True

    def _value(self) -> Any:
        token = self._token()
        if token["string"]:
            value: Any = token["string"][1:-1].replace("''", "'")
        elif token["number"]:
            value = int(token["number"])
        elif token["word"] in {"true", "false", "null"}:
            value = {"true": True, "false": False, "null": None}[token["word"]]
        else:
            value = self._call(str(token["word"]))
        while True:
            if self._next_is("."):
                value = member(value, self._token()["word"])
            elif self._next_is("["):
                value = member(value, self._value())
                self._next_is("]")
            else:
                return value

    def _call(self, function: str) -> Any:
        if not self._next_is("("):
            raise ArmError(f"cannot read [{self._source}]")
        arguments = []
        while not self._next_is(")"):
            arguments.append(self._value())
            self._next_is(",")
        if function == "if":
            condition, chosen, other = arguments
            return chosen if condition else other
        return self._template.named(function, arguments, self._loops)
