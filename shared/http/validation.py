"""All exceptions of FastAPI, Starlette, Pydantic and our own code, as problem documents."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared.http import problems, text
from shared.http.problems import MAX_ERRORS, MAX_NAME, Problem, ValidationFailed


def from_validation(error: ValidationError) -> ValidationFailed:
    """Return the 422 for a body that a model refused."""
    found = error.errors(include_url=False, include_input=False)
    return ValidationFailed(_validation_errors(item | {"loc": ("body", *item["loc"])} for item in found))


_DETAILS = {
    "dict_type": "must be an object",
    "extra_forbidden": "is not a member of this",
    "list_type": "must be an array",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
"""Clearer messages than Pydantic's own, by its type of error."""


def _validation_errors(errors: Iterable[Any]) -> list[dict[str, str]]:
    found = []
    for error in islice(errors, MAX_ERRORS):
        source, *path = error["loc"]
        if source == "body":
            place = {"pointer": "#" + "".join(f"/{_pointer_token(part)}" for part in path)}
        else:
            name = str(path[0]) if path else source
            # As the standards spell it; the framework uses small letters.
            place = {"header": name.title()} if source == "header" else {"parameter": name}
        found.append(place | {"detail": _detail(error)})
    return found


def _detail(error: Any) -> str:
    if error["type"] == "string_pattern_mismatch":
        pattern: str = error["ctx"]["pattern"]
        return text.REFUSED if pattern in (text.LINE, text.PROSE) else f"must match {pattern.strip('^$')}"
    return _DETAILS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _pointer_token(part: object) -> str:
    return str(part)[:MAX_NAME].replace("~", "~0").replace("/", "~1")


def _problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return ValidationFailed(_validation_errors(error.errors()))
        case HTTPException(status_code=problems.NotFound.status):
            return problems.NotFound("There is nothing at this path.")
        case HTTPException(status_code=problems.MethodNotAllowed.status):
            allowed = ", ".join(_methods(request))
            return problems.MethodNotAllowed(f"This resource has {allowed}.", headers={"Allow": allowed})
        case HTTPException():
            return problems.BadRequest("The request cannot be read.")
        case _:  # Starlette raises it again after this answer, and `outcome` logs it
            return problems.InternalError("The server failed.")


def _methods(request: Request) -> list[str]:
    """Return all methods of the path: Starlette's own `Allow` names only those of the first route."""
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found


async def _answer(request: Request, error: Exception) -> Response:
    return _problem(request, error).response(request.url.path)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document."""
    for kind in (Exception, Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)
