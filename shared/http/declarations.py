"""What an endpoint may declare: `arguments.solve` knows less than FastAPI's own solver, so `check` refuses the rest."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

from fastapi import params
from fastapi._compat import is_scalar_field
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

FORM = "is a form or a file; declare a model, which is read from JSON"


def check(endpoint: Callable[..., Any], dependant: Dependant) -> None:
    """Raise `TypeError`, with the remedy, for a declaration that `solve` does not support."""
    for fault in _faults(dependant):
        raise refused(endpoint, fault)


def refused(endpoint: Callable[..., Any], fault: str) -> TypeError:
    """Return the error for a fault in an endpoint's declaration."""
    return TypeError(f"{endpoint.__module__}.{endpoint.__name__}: {fault}")


def answer_of(endpoint: Callable[..., Any], model: Any) -> Any:
    """Return the declared model of an answer, or None; raises `TypeError` for anything else."""
    if not model:
        return None
    kind = get_args(model)[0] if get_origin(model) is list else model
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise refused(endpoint, "has a `response_model` that is no model; declare a model, or a list of one")
    return model


def _faults(dependant: Dependant) -> Iterator[str]:
    """Yield the faults in the declaration of an endpoint or a dependency, and of its dependencies."""
    call: Any = dependant.call
    name = getattr(call, "__name__", call)
    if yields(call):
        yield f"`{name}` yields; return the value, and open and close in the service what has to be closed"
    elif not (inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)):
        yield f"`{name}` is not a coroutine function; write `async def`"
    yield from _faults_of_fields(dependant)
    yield from _faults_of_body(dependant)
    for kind in ("response", "background_tasks", "security_scopes", "http_connection", "websocket"):
        if unserved := getattr(dependant, f"{kind}_param_name"):
            yield f"`{unserved}` is of a type that is not served; take `Request`, return a `Response`, use the outbox"
    for dependency in dependant.dependencies:
        for field in dependency.body_params:
            yield f"`{field.name}` is the body of a dependency; take it in the endpoint"
        yield from _faults(dependency)


def _faults_of_fields(dependant: Dependant) -> Iterator[str]:
    for field in dependant.cookie_params:
        yield f"`{field.name}` is a cookie, which no client of this API sends; take a header"
    for field in (*dependant.path_params, *dependant.query_params, *dependant.header_params):
        if not is_scalar_field(field):
            yield f"`{field.name}` has several values outside the body; take one string each, or declare a body"
        if field.field_info.validation_alias not in {None, field.alias}:
            yield f"`{field.name}` has a name for validation alone; write `alias=`"


def _faults_of_body(dependant: Dependant) -> Iterator[str]:
    for field in dependant.body_params:
        if isinstance(field.field_info, params.Form):
            yield f"`{field.name}` {FORM}"
        elif isinstance(field.field_info, params.Body) and field.field_info.embed:
            yield f"`{field.name}` is embedded; declare a model that has it as a member"
    if len(dependant.body_params) > 1:
        yield "takes several bodies; declare one model that has them as members"


def yields(call: Any) -> bool:
    """Return whether a function yields, and so would have to be closed."""
    return inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call)
