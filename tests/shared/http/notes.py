"""A small application of notes, whose pages and document are looked at."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from shared.http import openapi as docs
from shared.http import problems as errors
from shared.http.application import Application


class NoteLocked(errors.Conflict, slug="note-locked", title="Note <locked>"):
    """The note is locked by its `author` & nobody may write <b>into</b> it.

    Wait until the author
    unlocks it.
    """


class Note(BaseModel):
    text: str


async def token_of(
    given: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(scheme_name="bearer", auto_error=False))],
) -> str:
    if given is None:
        raise errors.Unauthorized("A token is needed.", headers={"WWW-Authenticate": "Bearer"})
    return given.credentials


Token = Annotated[str, Depends(token_of)]
router = APIRouter(prefix="/api/v1/notes", tags=["notes"])


@router.post("", status_code=201, responses=docs.headers(201, "ETag", "Location") | docs.problems(NoteLocked))
async def add_note(note: Note, idempotency_key: Annotated[str | None, Header()] = None) -> Note:
    return note


@router.get("/{note_id}")
async def read_note(note_id: str, token: Token, if_none_match: Annotated[str | None, Header()] = None) -> Note:
    """Read a note that shows the token which came with the request."""
    return Note(text=f"note {note_id} for {token}")


@router.patch("/{note_id}", responses=docs.problems(NoteLocked))
async def change_note(note_id: str, note: Note, token: Token, if_match: Annotated[str | None, Header()] = None) -> Note:
    return note


@router.delete("/{note_id}", status_code=204, responses=docs.problems(errors.Forbidden))
async def delete_note(note_id: str, token: Token, if_none_match: Annotated[str | None, Header()] = None) -> None:
    pass


@router.get("", summary="Find the newest notes")
async def find_notes(accept: Annotated[str | None, Header()] = None) -> list[Note]:
    return []


def make_app() -> Application:
    app = Application(title="Notes & <more>", version="1", drain=close, close=close)
    app.include_router(router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app


async def close() -> None:
    pass
