"""The resources of a deployment: reads a snapshot, as `bicep snapshot` evaluates a parameter file."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent
RUNTIME = "known-at-run-time"
"""Stands for a value that only Azure knows, such as a host name or an identity's client id."""

_FORMAT = re.compile(r"\[format\('((?:[^']|'')*)', (.+)\)\]")
_ARGUMENT = re.compile(r"'((?:[^']|'')*)'|(\d+)|\w+\((?:[^()]|\([^()]*\))*\)[\w.]*")


@dataclass(frozen=True)
class Resource:
    """One resource. Its body keeps expressions that need Azure or a secret: `[reference(…)…]`."""

    type: str
    name: str
    body: dict[str, Any]
    scope: str | None
    """The type of the resource that an extension resource belongs to, such as a role assignment's."""

    def get(self, path: str) -> Any:
        """Return the value at a dotted path of the body, or None."""
        value: Any = self.body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True)
class Deployment:
    """All resources of the template with one parameter file, `prod` or another."""

    label: str
    resources: tuple[Resource, ...]

    def of(self, *types: str) -> list[Resource]:
        """Return the resources of these types."""
        return [resource for resource in self.resources if resource.type in types]

    @property
    def production(self) -> bool:
        """Whether the deployment must be closed to the internet and survive the loss of a zone."""
        return self.label == "prod"

    @property
    def settings(self) -> dict[str, str]:
        """The application settings of the site, with `RUNTIME` for values that only Azure knows."""
        return {
            item["name"]: _text(item["value"])
            for site in self.of("Microsoft.Web/sites")
            for item in site.get("properties.siteConfig.appSettings") or []
        }


def read(snapshot: Path) -> Deployment:
    """Return the deployment of a snapshot, named `<label>.snapshot.json`."""
    found = json.loads(snapshot.read_text())["predictedResources"]
    return Deployment(snapshot.name.partition(".")[0], tuple(map(_resource, found)))


def _resource(body: dict[str, Any]) -> Resource:
    # …/providers/<type and name of the scope>/providers/<type and name of the resource>
    parts = body["id"].split("/providers/")
    namespace, *pieces = parts[-2].split("/") if len(parts) > 2 else [""]  # noqa: PLR2004
    return Resource(body["type"], body["name"].rpartition("/")[2], body, "/".join([namespace, *pieces[::2]]) or None)


def _text(value: str) -> str:
    if built := _FORMAT.fullmatch(value):
        known = (text or number or RUNTIME for text, number in _ARGUMENT.findall(built[2]))
        return built[1].format(*known)
    # No expression begins like an array of objects, such as the identity providers.
    return RUNTIME if value.startswith("[") and not value.startswith("[{") else value
