"""What a route may declare: each kind works over HTTP, or is refused at import with what to write instead."""

import functools
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Annotated, Any

import httpx
import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    File,
    Form,
    Header,
    Path,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
)
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from pydantic import BaseModel

from shared.http.application import Application
from shared.http.fields import Input
from shared.http.routing import answer, api_router
from tests.support.app import Client, token
from twins.app import create_app


class Item(Input):
    name: str = "nobody"


class Said(BaseModel):
    said: Any


def say(said: Any) -> Response:
    return answer(Said(said=said))


# --- Dependencies ----------------------------------------------------------------------------------


async def made(request: Request) -> int:
    """Return how often it has run in this request."""
    request.scope["made"] = request.scope.get("made", 0) + 1
    return int(request.scope["made"])


async def makes(once: Annotated[int, Depends(made)]) -> int:
    return once


async def asks(q: str = "nothing") -> str:
    return q


async def asks_twice(once: Annotated[str, Depends(asks)]) -> str:
    return once * 2


def sync() -> int:
    return 1


def yields() -> Iterator[int]:
    yield 1


async def yields_later() -> AsyncIterator[int]:
    yield 1


async def reads(item: Item) -> Item:
    return item


class Waits:
    async def __call__(self) -> int:
        return 7


async def notes_a(request: Request) -> None:
    request.scope.setdefault("notes", []).append("a")


async def notes_b(request: Request) -> None:
    request.scope.setdefault("notes", []).append("b")


async def notes_c(request: Request) -> None:
    request.scope.setdefault("notes", []).append("c")


async def override(x: Annotated[str, Header()]) -> str:
    return x


# --- Endpoints that are served ---------------------------------------------------------------------


async def body_of_any_name(item: Item) -> Response:
    return say(item.name)


async def body_with_an_alias(item: Annotated[Item, Body(alias="thing")]) -> Response:
    return say(item.name)


async def body_left_out(item: Item | None = None) -> Response:
    return say(item)


async def body_of_a_list(names: list[str]) -> Response:
    return say(names)


async def body_of_one_value(name: Annotated[str, Body()]) -> Response:
    return say(name)


async def aliases(
    path: Annotated[int, Path(alias="number")],
    query: Annotated[str, Query(alias="q")],
    x_header: Annotated[str, Header()],
) -> Response:
    return say([path, query, x_header])


async def defaults(
    q: Annotated[str, Query(default_factory=lambda: "made")], x: Annotated[str, Header()] = "x"
) -> Response:
    return say([q, x])


async def twice(a: Annotated[int, Depends(made)], b: Annotated[int, Depends(makes)]) -> Response:
    return say([a, b])


async def uncached(
    a: Annotated[int, Depends(made, use_cache=False)], b: Annotated[int, Depends(made, use_cache=False)]
) -> Response:
    return say([a, b])


async def callables(
    a: Annotated[int, Depends(Waits())], b: Annotated[str, Depends(functools.partial(asks, "set"))]
) -> Response:
    return say([a, b])


async def nested(asked: Annotated[str, Depends(asks_twice)]) -> Response:
    return say(asked)


async def noted(request: Request) -> Response:
    return say(request.scope.get("notes"))


async def silent() -> Response:
    return Response()


async def says_202() -> Response:
    return Response(status_code=202)


# --- Endpoints that are refused --------------------------------------------------------------------


async def two_bodies(item: Item, other: Item) -> Response:
    raise NotImplementedError


async def embedded(item: Annotated[Item, Body(embed=True)]) -> Response:
    raise NotImplementedError


async def form(name: Annotated[str, Form()]) -> Response:
    raise NotImplementedError


async def form_model(item: Annotated[Item, Form()]) -> Response:
    raise NotImplementedError


async def file(name: Annotated[bytes, File()]) -> Response:
    raise NotImplementedError


async def upload(name: UploadFile) -> Response:
    raise NotImplementedError


async def cookie(name: Annotated[str | None, Cookie()] = None) -> Response:
    raise NotImplementedError


async def query_list(name: Annotated[list[str], Query()]) -> Response:
    raise NotImplementedError


async def query_list_or_none(name: Annotated[list[str] | None, Query()] = None) -> Response:
    raise NotImplementedError


async def query_model(name: Annotated[Item, Query()]) -> Response:
    raise NotImplementedError


async def header_list(name: Annotated[list[str], Header()]) -> Response:
    raise NotImplementedError


async def header_model(name: Annotated[Item, Header()]) -> Response:
    raise NotImplementedError


async def header_mapping(name: Annotated[dict[str, str], Header()]) -> Response:
    raise NotImplementedError


async def other_name(name: Annotated[str, Query(validation_alias="q")]) -> Response:
    raise NotImplementedError


async def uses_sync(it: Annotated[int, Depends(sync)]) -> Response:
    raise NotImplementedError


async def uses_class(it: Annotated[Item, Depends(Item)]) -> Response:
    raise NotImplementedError


async def uses_yields(it: Annotated[int, Depends(yields)]) -> Response:
    raise NotImplementedError


async def uses_yields_later(it: Annotated[int, Depends(yields_later)]) -> Response:
    raise NotImplementedError


async def uses_partial_yields(it: Annotated[int, Depends(functools.partial(yields))]) -> Response:
    raise NotImplementedError


async def uses_reads(it: Annotated[Item, Depends(reads)]) -> Response:
    raise NotImplementedError


async def takes_response(it: Response) -> Response:
    raise NotImplementedError


async def takes_tasks(it: BackgroundTasks) -> Response:
    raise NotImplementedError


async def takes_scopes(it: SecurityScopes) -> Response:
    raise NotImplementedError


async def takes_connection(it: HTTPConnection) -> Response:
    raise NotImplementedError


async def takes_websocket(it: WebSocket) -> Response:
    raise NotImplementedError


async def model() -> Item:
    raise NotImplementedError


async def unannotated():  # type: ignore[no-untyped-def]  # noqa: ANN201
    raise NotImplementedError


async def response_or_none() -> Response | None:
    raise NotImplementedError


def not_async() -> Response:
    raise NotImplementedError


async def generator() -> AsyncIterator[str]:
    yield ""


# ---------------------------------------------------------------------------------------------------


@dataclass
class Works:
    """A route answers with `status`, and with `said` where that is given."""

    endpoint: Callable[..., Any]
    said: Any = ...
    status: int = 200
    path: str = ""
    send: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    """Options of the route's decorator."""
    around: tuple[Any, ...] = ()
    """Dependencies of the router."""
    overrides: dict[Any, Any] = field(default_factory=dict)


@dataclass
class Refused:
    """Declaring a route raises a `TypeError` that names the endpoint, the parameter or dependency, and the remedy."""

    endpoint: Callable[..., Any]
    name: str
    remedy: str


ALEX = {"json": {"name": "Alex"}}
A, B, C = (Depends(it) for it in (notes_a, notes_b, notes_c))

WORKS = [
    Works(body_of_any_name, "Alex", send=ALEX),
    Works(body_of_any_name, status=422, send={"json": {"name": 1}}),
    Works(body_of_any_name, status=422),
    Works(body_with_an_alias, "Alex", send=ALEX),
    Works(body_left_out, None),
    Works(body_of_a_list, ["a"], send={"json": ["a"]}),
    Works(body_of_one_value, "a", send={"json": "a"}),
    Works(aliases, [3, "it", "y"], path="/{number}", send={"params": {"q": "it"}, "headers": {"X-Header": "y"}}),
    Works(defaults, ["made", "x"]),
    Works(defaults, ["it", "y"], send={"params": {"q": "it"}, "headers": {"X": "y"}}),
    Works(twice, [1, 1]),
    Works(uncached, [1, 2]),
    Works(callables, [7, "set"]),
    Works(nested, "itit", send={"params": {"q": "it"}}),
    Works(noted, ["a", "b", "c"], around=(A,), declared={"dependencies": [B, C]}),
    Works(noted, ["a"], around=(A,), declared={"dependencies": [A]}),
    Works(silent, status=201, declared={"status_code": 201}),
    Works(silent, status=202, declared={"status_code": 202}),
    Works(silent, status=204, declared={"status_code": 204}),
    Works(body_of_any_name, status=204, send=ALEX, declared={"status_code": 204}),
    Works(body_of_any_name, "Alex", status=201, send=ALEX, declared={"status_code": 201}),
    Works(says_202, status=202, declared={"status_code": 201}),
    Works(nested, "xx", overrides={asks: lambda: "x"}),
    Works(nested, "yy", send={"headers": {"X": "y"}}, overrides={asks: override}),
    Works(nested, status=422, overrides={asks: override}),
    Works(nested, 1, overrides={asks_twice: makes}),
    Works(nested, 5, overrides={asks_twice: makes, made: lambda: 5}),
    Works(twice, [3, 3], overrides={made: lambda: 3}),
    Works(noted, ["b"], around=(A,), overrides={notes_a: notes_b}),
    Works(nested, status=500, overrides={asks: yields}),
]

FORMS = [Refused(it, "form or a file", "declare a model, which is read from JSON") for it in (form, form_model, file)]

REFUSED = [
    Refused(two_bodies, "several bodies", "declare one model that has them as members"),
    Refused(embedded, "`item`", "declare a model that has it as a member"),
    *FORMS,
    Refused(upload, "form or a file", "declare a model, which is read from JSON"),
    Refused(cookie, "`name`", "take a header"),
    *(
        Refused(it, "`name`", "take one string each, or declare a body")
        for it in (query_list, query_list_or_none, query_model, header_list, header_model, header_mapping)
    ),
    Refused(other_name, "`name`", "write `alias=`"),
    Refused(uses_sync, "`sync`", "write `async def`"),
    Refused(uses_class, "`Item`", "write `async def`"),
    Refused(uses_yields, "`yields`", "return the value"),
    Refused(uses_yields_later, "`yields_later`", "return the value"),
    Refused(uses_partial_yields, "yields", "return the value"),
    Refused(uses_reads, "`item`", "take it in the endpoint"),
    *(
        Refused(it, "`it`", "take `Request`, return a `Response`, use the outbox")
        for it in (takes_response, takes_tasks, takes_scopes, takes_connection, takes_websocket)
    ),
    *(
        Refused(it, "returns no Response", "annotate `-> Response` and return `answer(model)`")
        for it in (model, unannotated, response_or_none, generator)
    ),
    Refused(not_async, "`not_async`", "write `async def`"),
]


@pytest.fixture(scope="module")
async def app(environment: dict[str, str]) -> AsyncIterator[Application]:
    app = create_app()
    yield app
    await app.close()


def name_of(case: Works | Refused) -> str:
    return case.endpoint.__name__


@pytest.mark.parametrize("case", [*WORKS, *REFUSED], ids=name_of)
@pytest.mark.parametrize("included", [False, True], ids=["added", "included"])
async def test_a_declaration_works_or_is_refused_with_the_remedy(
    app: Application, case: Works | Refused, included: bool
) -> None:
    here = f"/here/{len(app.routes)}"
    router = api_router(here)
    if isinstance(case, Refused):
        with pytest.raises(TypeError) as refusal:
            router.post("")(case.endpoint)
        text = str(refusal.value)
        assert text.startswith(f"{__name__}.{case.endpoint.__name__}: ")
        assert case.name in text
        assert case.remedy in text
        return
    if included:  # where a router is included, its dependencies can be those of the inclusion
        router.post(case.path, **case.declared)(case.endpoint)
        app.include_router(router, dependencies=case.around)
    else:
        router.dependencies.extend(case.around)
        router.post(case.path, **case.declared)(case.endpoint)
        app.router.routes.extend(router.routes)
    app.dependency_overrides = case.overrides

    async with Client(
        transport=httpx.ASGITransport(app),
        base_url="http://twins.test",
        headers={"Authorization": f"Bearer {token('a')}"},
    ) as client:
        found = await client.post(f"/api/v1{here}{case.path}".replace("{number}", "3"), **case.send)

    assert found.status_code == case.status, found.text
    if case.said is not ...:
        assert found.json() == {"said": case.said}
    if case.status == 204:
        assert found.content == b""
        assert not {"content-length", "content-type"} & found.headers.keys()


@pytest.mark.parametrize("case", FORMS, ids=name_of)
def test_a_form_is_refused_where_its_reader_is_installed(monkeypatch: pytest.MonkeyPatch, case: Refused) -> None:
    reader, parser = ModuleType("python_multipart"), ModuleType("python_multipart.multipart")
    reader.__version__ = "1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "python_multipart", reader)
    monkeypatch.setitem(sys.modules, "python_multipart.multipart", parser)

    with pytest.raises(TypeError, match=re.escape(case.remedy)):
        api_router().post("/here")(case.endpoint)


@pytest.mark.parametrize("model", [object(), int, dict[str, int], list[int]])
def test_an_answer_that_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match="is no model; declare a model, or a list of one"):
        api_router().post("/here", response_model=model)(silent)
