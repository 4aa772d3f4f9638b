"""`ApiRoute`: the handling of API requests that FastAPI does not do by itself."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from operator import attrgetter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi._compat import shared as compat
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, _effective_route_context_var
from fastapi.utils import create_model_field
from pydantic import BaseModel
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from shared import logging
from shared.auth import CurrentUser
from shared.context import Context
from shared.http import arguments, declarations
from shared.http.bounds import Kind, kind_of
from shared.http.problems import InsufficientScope
from shared.http.second_process import LARGE, is_in_second_process

# FastAPI looks whether a model is of Pydantic 1. None is, and the import takes 32 ms of a cold start.
compat.is_pydantic_v1_model_class = lambda cls: False  # noqa: ARG005


class Logged:
    """Marks a path parameter: each log line of the request carries its value, once it is valid."""


class ApiRoute(APIRoute):
    """A route that authenticates first, refuses unknown parameters and unwanted bodies, and reads bodies strictly.

    FastAPI reads a body before it runs dependencies, so bad JSON without a token would be 422, not
    401. FastAPI also ignores undeclared query parameters, and accepts NaN and duplicate names.

    The declared `status_code` replaces 200, the default of a response; an endpoint with two success
    statuses declares none. An unsupported declaration is a `TypeError` at import, with the remedy.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], *, response_model: Any = None, **options: Any) -> None:
        returned = inspect.get_annotations(endpoint, eval_str=True).get("return")
        if not (isinstance(returned, type) and issubclass(returned, Response)):
            raise declarations.refused(
                endpoint, "returns no Response; annotate `-> Response` and return `answer(model)`"
            )
        try:
            super().__init__(path, endpoint, response_model=None, **options)
        except RuntimeError as error:
            if "python-multipart" not in str(error):
                raise
            raise declarations.refused(endpoint, f"a parameter {declarations.FORM}") from None
        self.response_model = declarations.answer_of(endpoint, response_model)
        self._end = self.path.rpartition("}")[2]
        answer = self._answer

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await answer(scope, receive)
            await response(scope, receive, send)

        # FastAPI's would open two stacks for dependencies that yield, and handle errors as the layers above do again.
        self.app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is for this route, most often from the last word of its path alone.

        The routes are asked one after another, and twenty regular expressions were a sixteenth of some requests.
        """
        return super().matches(scope) if scope["path"].endswith(self._end) else (Match.NONE, {})

    def describe(self) -> None:
        """Make the field of the answer, which the OpenAPI document needs and no request: so not at import."""
        if self.response_field is None and self.response_model is not None:
            name = f"Response_{self.unique_id}"
            self.response_field = create_model_field(name, self.response_model, mode="serialization")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request, for a route that `include_router` has changed."""
        answer = self._answer = self._answering()

        async def handle(received: Request) -> Response:
            return await answer(received.scope, received.receive)

        return handle

    def _answering(self) -> Callable[[Scope, Receive], Coroutine[Any, Any, Response]]:
        route: Any = _effective_route_context_var.get() or self  # `include_router` may add dependencies
        dependant: Dependant = route.dependant
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        declarations.check(endpoint, dependant)
        status = self.status_code
        parameters = arguments.query_names(dependant)
        max_body = arguments.max_body(dependant)
        logged = [
            (field.name, field.alias)
            for field in dependant.path_params
            if any(isinstance(item, Logged) for item in field.field_info.metadata)
        ]
        check_scopes = _scopes_checked(dependant, self)
        plan = arguments.make_plan(dependant)
        body = next((field.alias for field in dependant.body_params), None)
        media_types = ["application/json"]
        if "PATCH" in (self.methods or ()):
            media_types.append("application/merge-patch+json")

        kind, room = kind_of(endpoint), endpoint.__module__
        is_heavy, may_be_large = is_in_second_process(endpoint), max_body > LARGE

        async def answer(scope: Scope, receive: Receive) -> Response:
            request = arguments.BoundedRequest(scope, receive)
            request.max_body = max_body
            context: Context = scope["app"].state.context
            user = scope.get("user")  # in the second process: the first has let this request in
            if user is None:
                token = ",".join(request.headers.getlist("authorization")) or None
                user = scope["user"] = await context.authenticator.authenticate(token)
                logging.bind(**user.logged)
                check_scopes(user)
            if isinstance(kind, Kind):
                with context.bounds.place(kind, user):
                    second = context.second_process
                    if second is not None and (is_heavy or (may_be_large and len(await request.body()) > LARGE)):
                        async with context.bounds.heavy_turn(user):
                            return await second.answer(scope, b"" if is_heavy else await request.body())
                    content = await _content(request, parameters, body, media_types)
                    async with context.bounds.turn(kind, user, room):
                        return await serve(request, content)
            content = await _content(request, parameters, body, media_types)
            found = kind(content.get(body))
            with context.bounds.place(found, user):
                async with context.bounds.turn(found, user, room):
                    return await serve(request, content)

        async def serve(request: Request, content: Mapping[Any, Any]) -> Response:
            path_params = request.scope["path_params"]
            errors: list[Any] = []
            found = await arguments.solve(plan, request, content, errors, {})
            if logged:
                logging.bind(**{name: path_params[alias] for name, alias in logged if found.get(name) is not None})
            if errors:
                raise RequestValidationError(errors)
            return _declared(await endpoint(**found), status)

        return answer


async def _content(
    request: Request, parameters: set[str], body: str | None, media_types: list[str]
) -> dict[str | None, Any]:
    """Return the parsed body under its parameter's name, once the query has been checked."""
    query = request.scope["query_string"]
    request.scope["query"] = arguments.read_query(query, parameters) if query else {}
    if body is not None:
        if (parsed := await arguments.read_body(request, media_types)) is not ...:
            return {body: parsed}
    elif request.scope["method"] != "GET":  # whose body has no meaning (RFC 9110 §9.3.1) and is not read
        await arguments.refuse_body(request, media_types)
    return {}


def _scopes_checked(dependant: Dependant, route: APIRoute) -> Callable[[CurrentUser], None]:
    """Return what raises `InsufficientScope` for a token that a route does not take, by the route's declaration."""
    required = _scopes(dependant)
    challenge = f'Bearer error="insufficient_scope", scope="{" ".join(sorted(required))}"'  # RFC 6750 §3.1
    ways = (route.openapi_extra or {}).get("security", ())
    opening = {scope for way in ways for names in way.values() for scope in names}  # by `scopes_that_open`
    reads = route.methods == {"GET"}  # as which HEAD arrives

    def check(user: CurrentUser) -> None:
        if not required <= user.scopes:
            detail = f"The token needs the scope {' '.join(sorted(required))}."
            raise InsufficientScope(detail, headers={"WWW-Authenticate": challenge})
        if user.only is not None and not reads and user.only not in opening:
            raise InsufficientScope(f"A token with the scope {user.only} alone may only read.")

    return check


def _scopes(dependant: Dependant) -> frozenset[str]:
    """Return the scopes that a token needs, by the declaration of the endpoint and its dependencies."""
    return frozenset(dependant.own_oauth_scopes or ()).union(*map(_scopes, dependant.dependencies))


def _declared(response: Response, status: int | None) -> Response:
    """Give a response of 200, the default, the declared status."""
    if status is None or response.status_code != 200:  # noqa: PLR2004
        return response
    response.status_code = status
    if status == 204:  # noqa: PLR2004
        response.body = b""
        del response.headers["content-length"], response.headers["content-type"]
    return response


_operation_id = attrgetter("name")
"""The operation id is the endpoint's name: generated clients use it as the method's name."""


def api_router(prefix: str = "", *tags: str) -> APIRouter:
    """Return a router whose routes are `ApiRoute`s, for `/api/v1` followed by `prefix`."""
    return APIRouter(
        prefix=f"/api/v1{prefix}", tags=[*tags], route_class=ApiRoute, generate_unique_id_function=_operation_id
    )


def public_router(*tags: str) -> APIRouter:
    """Return a router of plain FastAPI routes, without authentication."""
    return APIRouter(tags=[*tags], generate_unique_id_function=_operation_id)


def answer(model: BaseModel, *, etag: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """Return a model as JSON; with an entity tag the client may cache and revalidate it (RFC 9111)."""
    found = dict(headers or {})
    if etag is not None:
        found |= {"ETag": etag, "Cache-Control": "private, no-cache"}
    return Response(model.model_dump_json(), headers=found, media_type="application/json")
