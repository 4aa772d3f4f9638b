"""The twin above a resource: its id in paths, its address, and the answer for a missing twin."""

from typing import Annotated
from uuid import UUID

from fastapi import Path

from shared.http.fields import Id
from shared.http.problems import NotFound
from shared.http.routing import Logged

TwinId = Annotated[Id, Path(description="The twin's id."), Logged()]


def address(twin_id: UUID) -> str:
    """Return the path of a twin."""
    return f"/api/v1/twins/{twin_id}"


def no_twin() -> NotFound:
    """Return the one answer for a twin that does not exist, is erased, or belongs to another owner."""
    return NotFound("There is no such twin.")
