"""What a deployment would create, as far as it can be known without Azure."""

from dataclasses import dataclass
from typing import Any


class Runtime(str):
    """A value that only a deployment knows, by the expression that gives it."""

    __slots__ = ()


@dataclass(frozen=True)
class Resource:
    """One resource, its body with every expression evaluated; `Runtime` where that needs Azure."""

    type: str
    version: str
    name: str
    body: dict[str, Any]
    scope: str | None = None
    """Type of the resource that an extension resource, such as a role assignment, belongs to."""

    def get(self, path: str) -> Any:
        """Return the value at a dotted path of the body, None where there is none."""
        value: Any = self.body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True)
class Deployment:
    """All resources of one template with one set of parameters."""

    label: str
    parameters: dict[str, Any]
    resources: tuple[Resource, ...]

    def of(self, type_: str) -> list[Resource]:
        """Return the resources of one type."""
        return [resource for resource in self.resources if resource.type.lower() == type_.lower()]

    @property
    def private(self) -> bool:
        """Whether everything is to be closed to the internet."""
        return bool(self.parameters["network"] == "private")

    @property
    def settings(self) -> dict[str, str]:
        """The application settings of the site."""
        return {
            item["name"]: item["value"]
            for site in self.of("Microsoft.Web/sites")
            for item in site.get("properties.siteConfig.appSettings") or []
        }
