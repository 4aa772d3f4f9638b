"""The requests of each workload."""

import http.client
import itertools
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from bench import data, load
from bench.stack import App
from devstack.process import LOCALHOST

LISTS = ("list, first page", "list, deep page")
READ = ("gate", "get", *LISTS, "persona get")
WRITTEN = ("create", "patch", "persona put")
ALL = (*READ, *WRITTEN, "mixed 90/10")

TWINS, DECISIONS = "/api/v1/twins", "/api/v1/decisions"
ATTRIBUTES = (
    "&recipient_type=organization&recipient_id=acme&recipient_issuer=lei&modality=voice&territory=DE"
    "&min_assurance=recorded&principal=somebody"
)
"""All that a question to the gate may name beside the purpose."""
ALEX = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
PERSONA = {
    "summary": "Alex helps customers of a bicycle shop.",
    "greeting": "Hi, Alex here. What can I do for you?",
    "languages": ["en", "pt-BR"],
    "traits": ["patient", "precise"],
    "style": {"formality": "neutral", "verbosity": "short", "humor": None, "emoji": None},
    "boundaries": ["Never promises a delivery date."],
    "facts": [{"text": "The shop opens at nine.", "source": "https://example.com/hours"}],
    "examples": [{"user": "Is my bike ready?", "twin": "Let me look. What is the order number?"}],
    "extensions": {},
}
SAMPLED = 2000
PERSONAS = 200
READERS = 20
PAGE = 20


def call(app: App, raw: bytes) -> tuple[int, Any]:
    """Send one request and return the status and the parsed answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    connection = http.client.HTTPConnection(LOCALHOST, app.port, timeout=60)
    connection.request(method, target, body or None, dict(line.split(": ", 1) for line in lines))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content else None


def check(app: App, raw: bytes) -> Any:
    """Send one request and return the parsed answer; raises `LoadError` where it was refused."""
    status, answer = call(app, raw)
    if status >= 300:
        raise load.LoadError(f"{app.name}: {status} {answer}")
    return answer


class Workloads:
    """Request lists over one database: the same for each application, but for cursors."""

    def __init__(self, app: App) -> None:
        """Give the twins that are read and written a persona, through `app`."""
        database = app.database
        dsn = database.owner_dsn
        owners = map(data.owner, range(data.owners(database.rows)))
        self._tokens = {name: database.token(name) for name in [*owners, data.WRITER]}
        self._random = random.Random(1)
        readers = [data.owner(number) for number in range(READERS)]
        self._readers = readers
        self._twins = [(name, twin) for name in readers for twin in data.some_twins(dsn, name, SAMPLED // READERS)]
        self._random.shuffle(self._twins)
        self._written = data.some_twins(dsn, data.WRITER, data.WRITTEN)
        self._with_persona = self._twins[:PERSONAS]
        for name, twin_id in self._with_persona:
            check(app, self.request("PUT", f"{TWINS}/{twin_id}/persona", name, PERSONA))

    def of(self, app: App, name: str) -> list[bytes]:  # noqa: C901 - one case a workload
        """The requests of one workload."""
        twins, request, number = self._twins, self.request, itertools.count()
        match name:
            case "gate":
                found = [request("GET", f"{TWINS}/{twin}/decision?purpose=general", owner) for owner, twin in twins]
            case "gate, all attributes":  # of ours alone: no peer knows them
                path = f"decision?purpose=general{ATTRIBUTES}"
                found = [request("GET", f"{TWINS}/{twin}/{path}", owner) for owner, twin in twins]
            case "get":
                found = [request("GET", f"{TWINS}/{twin}", owner) for owner, twin in twins]
            case "list, first page":
                found = [request("GET", f"{TWINS}?limit={PAGE}", owner) for owner in self._readers]
            case "list, deep page":
                found = [self._deep(app, owner) for owner in self._readers]
            case "create":
                found = [request("POST", TWINS, data.WRITER, ALEX | {"twin_name": f"Alex {n}"}) for n in range(1000)]
            case "patch":
                # Another tone each time, so that each request changes the row.
                found = [
                    request("PATCH", f"{TWINS}/{twin}", data.WRITER, {"tone": f"tone {next(number)}"})
                    for _ in range(2)
                    for twin in self._written
                ]
            case "persona get":
                found = [request("GET", f"{TWINS}/{twin}/persona", owner) for owner, twin in self._with_persona]
            case "persona put":
                found = [
                    request("PUT", f"{TWINS}/{twin}/persona", data.WRITER, PERSONA) for twin in self._written[:PERSONAS]
                ]
            case "batch of 100":  # of ours alone: no peer answers many questions at once
                found = [request("POST", DECISIONS, owner, self._questions(owner)) for owner in self._readers]
            case "mixed 90/10":
                parts = {"gate": 500, "get": 300, "list, first page": 20, "patch": 50, "create": 50}
                mixed = [one for part, count in parts.items() for one in self.of(app, part)[:count]]
                mixed += self.of(app, "persona get")[:80]
                self._random.shuffle(mixed)
                found = mixed
            case _:
                raise ValueError(name)
        return found

    def gate_by(self, token: Callable[[str], str]) -> list[bytes]:
        """The requests of the gate with other tokens of the same readers."""
        tokens = {name: token(name) for name in self._readers}
        return [
            load.request("GET", f"{TWINS}/{twin}/decision?purpose=general", name, tokens[name])
            for name, twin in self._twins
        ]

    def _questions(self, owner: str) -> dict[str, Any]:
        return {"items": [{"twin_id": str(twin)} for name, twin in self._twins if name == owner]}

    def _deep(self, app: App, owner: str) -> bytes:
        """The last page of an owner's list, found by following the cursors."""
        rows = app.database.rows
        left = rows // data.owners(rows) - PAGE
        after = ""
        while left > 0:
            page = check(app, self.request("GET", f"{TWINS}?limit={min(left, 100)}{after}", owner))
            after = f"&cursor={quote(page['next_cursor'])}"
            left -= 100
        return self.request("GET", f"{TWINS}?limit={PAGE}{after}", owner)

    def request(self, method: str, target: str, owner: str, body: object = None) -> bytes:
        return load.request(method, target, owner, self._tokens[owner], body)
