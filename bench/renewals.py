"""A no on a consent that has been renewed very often: history must cost nothing."""

import time
from typing import Any
from uuid import UUID

from bench import data, load, workloads
from bench.stack import App
from bench.workloads import TWINS

OWNER, PERSON = "renewer", "person"
PURPOSES = ["general", *(f"purpose-{number}" for number in range(19))]
COUNT = 10
"""The number of twins, and so of the acts that a twin takes only once."""
SOME = 5


def run(app: App, renewals: int) -> dict[str, Any]:
    """Return the milliseconds of each answer to withdraw, refuse, `consent: false` and DELETE."""
    twins = data.renewed(app.database.owner_dsn, OWNER, PERSON, PURPOSES, renewals, COUNT)
    found: dict[str, list[float]] = {}
    acts = [act for twin_id in twins for act in _acts(app, twin_id)]
    # Erasures last: each removes 100,000 consents in the background, on the processor that the other acts need.
    for act, request in sorted(acts, key=lambda act: act[0] == "DELETE"):
        before = time.perf_counter()
        status, answer = workloads.call(app, request)
        found.setdefault(act, []).append(round((time.perf_counter() - before) * 1e3, 2))
        if status >= 300:
            raise load.LoadError(f"{act}: {status} {answer}")
    return {"renewals": renewals, "ms": found}


def _acts(app: App, twin_id: UUID) -> list[tuple[str, bytes]]:
    path = f"{TWINS}/{twin_id}"
    tokens = {name: app.database.token(name) for name in (OWNER, PERSON)}

    def request(method: str, target: str, name: str, body: object = None) -> bytes:
        return load.request(method, target, name, tokens[name], body)

    newest = workloads.check(app, request("GET", f"{path}/consents?limit=1", OWNER))["items"][0]["id"]
    withdraw = f"{path}/consents/{newest}/withdraw"
    return [
        *(("withdraw", request("POST", withdraw, PERSON, {"purposes": [PURPOSES[n]]})) for n in range(1, SOME + 1)),
        *(("refuse", request("POST", f"{path}/refusals", PERSON, {"purposes": [f"new-{n}"]})) for n in range(SOME)),
        ("consent: false", request("PATCH", path, OWNER, {"consent": False})),
        ("withdraw", request("POST", withdraw, PERSON)),
        ("refuse", request("POST", f"{path}/refusals", PERSON)),
        ("DELETE", request("DELETE", path, OWNER)),
    ]
