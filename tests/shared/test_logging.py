"""Log lines: what they carry, how they are written, and what is never in them."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from devstack.functions_host import WorkerTransport
from tests.support.app import ALEX, Client, ClientOf, is_problem, make_twin, token
from tests.support.database import refused_name
from tests.support.stores import Stores
from twins.app import create_app
from twins.context import Context
from twins.settings import Settings

PROGRAM = """
import logging, sys
from shared import logging as logs
{before}
logs.configure("INFO", "twins")
logs.configure("INFO", "twins")
logger = logging.getLogger("twins.twin.service")
logger.info("Outside a request")
logs.bind(lost="x")
logs.begin("first")
logs.bind(owner="0123456789abcdef")
logger.info("Twin created", extra={{"twin_name": "Zoë\\n{{}}", "n": 1}})
logger.debug("Too detailed")
logging.getLogger("other.library").warning("Its own %s", "words")
logging.getLogger("azure.identity").warning("Too chatty")
logs.begin("second")
logger.error("Failed", extra={{"error": "ValueError", "constraint": None}})
"""


def lines_of(before: str = "") -> list[str]:
    """Run a program that logs, as a process of its own where no test has set up logging."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)], check=True, capture_output=True, text=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_outside_functions_each_line_is_one_json_object() -> None:
    lines = lines_of()
    first, created, other, failed = [json.loads(line) for line in lines]

    assert first.keys() == {"timestamp", "level", "logger", "message"}
    assert {name: created[name] for name in created if name != "timestamp"} == {
        "level": "INFO",
        "logger": "twins.twin.service",
        "message": "Twin created",
        "request_id": "first",
        "owner": "0123456789abcdef",
        "twin_name": "Zoë\n{}",
        "n": 1,
    }
    assert (other["message"], other["request_id"]) == ("Its own words", "first")
    assert (failed["request_id"], failed["error"], failed["level"]) == ("second", "ValueError", "ERROR")
    assert "owner" not in failed
    assert '"level":"ERROR"' in lines[-1]  # as tests search for it in what an application has written


def test_a_handler_that_is_there_already_is_the_only_one() -> None:
    # As the worker of Azure Functions has one: a second would write every line twice.
    lines = lines_of("logging.basicConfig(format='HOST %(message)s %(request_id)s')\nlogs.begin('zeroth')")

    assert lines.count("HOST Twin created first") == 1
    assert not any(line.startswith("{") for line in lines)


WORKER = """
import logging, sys

class AsyncLoggingHandler(logging.Handler):
    def emit(self, record):
        print("to the host:", record.getMessage(), file=sys.stderr)

root = logging.getLogger()
root.setLevel(logging.INFO)
root.addHandler(logging.StreamHandler(sys.stdout))
{grpc}
from shared import logging as logs
from shared.azure.functions import FunctionApp
logs.configure("INFO", "twins")
FunctionApp(None)
logging.getLogger("twins.twin.service").info("Twin created")
"""


@pytest.mark.parametrize(
    ("grpc", "host", "console"),
    [("root.addHandler(AsyncLoggingHandler())", "to the host: Twin created\n", ""), ("", "", "Twin created\n")],
)
def test_under_the_worker_a_line_goes_to_the_host_alone(grpc: str, host: str, console: str) -> None:
    """The worker's `logging.setup` adds the handler of its console, and its dispatcher another."""
    program = WORKER.format(grpc=grpc)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == (host, console)


# --- What the application logs -------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that any library logs, at every level."""
    levels = {name: logging.getLogger(name).level for name in ("twins", "shared", "azure.functions")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def fields(log: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in log.records if record.getMessage() == message]


def lines_at(log: pytest.LogCaptureFixture, level: int, request_id: str) -> list[str]:
    """Return the messages of a request that the application logs at this level or above it."""
    ours = (record for record in log.records if record.name.startswith(("twins", "shared")) and record.levelno >= level)
    return [record.getMessage() for record in ours if vars(record).get("request_id") == request_id]


def last(log: pytest.LogCaptureFixture, request_id: str) -> dict[str, Any]:
    """Return the line that ends a request."""
    (line,) = [vars(r) for r in log.records if vars(r).get("request_id") == request_id and "duration_ms" in vars(r)]
    return line


async def test_a_creation_is_logged_when_it_begins_and_when_it_is_done(
    alice: Client, context: Context, log: pytest.LogCaptureFixture
) -> None:
    made = await alice.post("/api/v1/twins", json=ALEX, headers={"X-Request-Id": "from-the-client"})

    (initiated,), (created,) = fields(log, "Twin creation initiated"), fields(log, "Twin created")
    assert initiated["twin_name"] == created["twin_name"] == context.log_name("Alex")
    assert created["twin_id"] == made.json()["id"]
    assert initiated["request_id"] == created["request_id"] == "from-the-client"
    assert initiated["owner"] == created["owner"] != ""
    assert initiated["levelname"] == created["levelname"] == "INFO"
    assert last(log, "from-the-client") is created
    assert [(line["method"], line["route"], line["status"], line["transition"]) for line in (created,)] == [
        ("POST", "/api/v1/twins", 201, "given")
    ]
    assert created["duration_ms"] > 0
    assert lines_at(log, logging.INFO, "from-the-client") == ["Twin creation initiated", "Twin created"]


async def test_a_repeated_creation_is_logged_as_such(alice: Client, log: pytest.LogCaptureFixture) -> None:
    key = {"Idempotency-Key": "the-same-for-both"}
    made = await alice.post("/api/v1/twins", json=ALEX, headers=key)
    await alice.post("/api/v1/twins", json=ALEX, headers=key | {"X-Request-Id": "again"})

    assert lines_at(log, logging.INFO, "again") == ["Twin creation initiated", "Twin creation repeated"]
    assert (last(log, "again")["twin_id"], last(log, "again")["status"]) == (made.json()["id"], 201)


async def test_a_creation_that_is_refused_before_it_begins_is_one_line(
    alice: Client, anyone: Client, log: pytest.LogCaptureFixture
) -> None:
    for client, body, status in ((alice, ALEX | {"tone": 1}, 422), (anyone, ALEX, 401)):
        await client.post("/api/v1/twins", json=body, headers={"X-Request-Id": f"refused-{status}"})
        assert lines_at(log, logging.INFO, f"refused-{status}") == ["Request"]
        assert last(log, f"refused-{status}")["status"] == status


async def test_a_change_is_one_line(alice: Client, log: pytest.LogCaptureFixture) -> None:
    path = await make_twin(alice)
    for number, (method, below, body) in enumerate(
        [("PATCH", "", {"tone": "warm"}), ("PUT", "/persona", {"summary": "Sells bicycles."})]
    ):
        await alice.request(method, path + below, json=body, headers={"X-Request-Id": f"change-{number}"})
        assert lines_at(log, logging.INFO, f"change-{number}") == ["Request"]


async def test_a_refused_creation_is_logged_with_its_class_and_no_text(
    alice: Client, context: Context, log: pytest.LogCaptureFixture
) -> None:
    key = {"Idempotency-Key": "one-and-the-same"}
    await alice.post("/api/v1/twins", json=ALEX, headers=key)
    refused = await alice.post("/api/v1/twins", json=ALEX | {"tone": "warm"}, headers=key)

    assert is_problem(refused, 422, "idempotency-key-reused")
    (failed,) = fields(log, "Twin creation failed")
    assert (failed["error"], failed["constraint"]) == ("IdempotencyKeyReused", None)
    assert failed["twin_name"] == context.log_name("Alex")
    assert (failed["levelname"], failed["status"]) == ("INFO", 422)


async def test_a_failed_creation_is_logged_with_its_constraint_and_no_text(
    alice: Client, stores: Stores, log: pytest.LogCaptureFixture
) -> None:
    async with refused_name(stores, "Mallory"):
        refused = await alice.post("/api/v1/twins", json=ALEX | {"twin_name": "Mallory", "tone": "sinister"})

    assert is_problem(refused, 500, "internal-error")
    (failed,) = fields(log, "Twin creation failed")
    assert (failed["error"], failed["constraint"]) == ("CheckViolationError", "twins_refused_name")
    assert (failed["levelname"], failed["status"]) == ("ERROR", 500)
    (unhandled,) = fields(log, "Unhandled exception")
    assert unhandled["error"] == "CheckViolationError"
    assert "sinister" not in refused.text
    assert not any(
        "sinister" in str(vars(record)) for record in log.records if record.name.startswith(("twins", "shared"))
    )


async def test_where_names_are_not_logged_a_digest_stands_for_them(
    settings: Settings, log: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings.model_copy(update={"log_names": False}))
    async with Client(
        transport=httpx.ASGITransport(app),
        base_url="http://twins.test",
        headers={"Authorization": f"Bearer {token('owner-of-a-secret-name')}"},
    ) as client:
        for name in ("Rumpelstiltskin", "Rumpelstiltskin", "Alex"):
            await make_twin(client, twin_name=name)
    await app.close()

    names = [event["twin_name"] for event in fields(log, "Twin created")]
    assert len(names) == 3
    assert names[0] == names[1] != names[2]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)
    assert names == [event["twin_name"] for event in fields(log, "Twin creation initiated")]
    ours = [record for record in log.records if record.name.startswith(("twins", "shared"))]
    assert not any("Rumpelstiltskin" in str(vars(record)) for record in ours)


async def test_where_names_are_logged_they_are_the_names(settings: Settings, log: pytest.LogCaptureFixture) -> None:
    app = create_app(settings.model_copy(update={"log_names": True}))
    headers = {"Authorization": f"Bearer {token('owner-of-a-public-name')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        await make_twin(client, twin_name="Publicly Known")
    await app.close()

    assert [event["twin_name"] for event in fields(log, "Twin created")] == ["Publicly Known"]


async def test_neither_an_account_nor_a_token_is_ever_logged(
    client_of: ClientOf, anyone: Client, transport: httpx.AsyncBaseTransport, log: pytest.LogCaptureFixture
) -> None:
    sub = "auth0|the-account-that-must-not-be-logged"
    client = client_of(sub)
    credentials = client.headers["authorization"].removeprefix("Bearer ")
    path = await make_twin(client)
    await client.put(f"{path}/persona", json={"summary": "Sells bicycles."})
    await client.get(f"{path}/persona/prompt")
    await client.patch(path, json={"consent": False})
    await client.get("/api/v1/twins?limit=0")
    await client.post("/api/v1/twins", content=b"{", headers={"Content-Type": "application/json"})
    await anyone.get("/api/v1/twins", headers={"Authorization": f"Bearer {token(sub, exp=1)}"})
    await anyone.get("/api/v1/twins", headers={"Authorization": f"Bearer {credentials}x"})
    await client.delete(path)

    assert log.records
    for record in log.records:
        # The worker library hands an invocation on as one object, which it may log at DEBUG.
        written = f"{record.getMessage()} {vars(record)}"
        assert sub not in written, record.name
        assert credentials[:-10] not in written, record.name
    owners = {event.get("owner") for event in fields(log, "Request")}
    assert len(owners - {None}) == 1
    assert isinstance(transport, WorkerTransport) or fields(log, "Request")


async def test_each_request_is_one_line_with_its_route_not_its_path(
    alice: Client, log: pytest.LogCaptureFixture
) -> None:
    path = await make_twin(alice)
    await alice.get(f"{path}?tone=secret")
    await alice.get("/api/v1/secret")

    unknown_parameter, missing = fields(log, "Request")
    assert (unknown_parameter["method"], unknown_parameter["status"]) == ("GET", 422)
    assert unknown_parameter["route"] == "/api/v1/twins/{twin_id}"
    assert (missing["route"], missing["status"]) == ("", 404)
    assert not any("secret" in str(event) for event in (unknown_parameter, missing))


async def test_an_id_that_is_none_is_not_logged(alice: Client, log: pytest.LogCaptureFixture) -> None:
    path = await make_twin(alice)
    for refused in (
        await alice.get("/api/v1/twins/not-an-id"),
        await alice.patch("/api/v1/twins/not-an-id", json={"tone": 1}),
        await alice.patch(path, json={"tone": 1}),
    ):
        assert refused.status_code == 422

    ids = [event.get("twin_id") for event in fields(log, "Request")]
    assert ids == [None, None, path.rsplit("/", maxsplit=1)[1]]


async def test_a_change_and_a_deletion_are_logged_with_their_twin(alice: Client, log: pytest.LogCaptureFixture) -> None:
    path = await make_twin(alice)
    await alice.patch(path, json={"tone": "warm"})
    await alice.delete(path)

    (given,), (changed, erased) = fields(log, "Twin created"), fields(log, "Request")
    for event in (changed, erased):
        assert path.endswith(event["twin_id"])
    assert (given["transition"], erased["transition"]) == ("given", "erased")
