"""One run: the measurements, their order and their number."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import data, issuer, neighbour, profiler, renewals, workloads
from bench.load import Outcome
from bench.stack import UNBOUNDED, App, Database, Stack, server_cpu
from bench.workloads import Workloads
from devstack.local import ROOT
from devstack.process import LOCALHOST
from twins.scopes import DECIDE

APPS = ("ours", "hand-written", "silent", "usual", "limit", "function host", "stock adapter")
GROWN = ("gate", "gate, all attributes", "get", "list, first page", "list, deep page")
LIBRARIES = "import fastapi, asyncpg, motor.motor_asyncio, jose.jwt, azure.functions"
PACKAGES = ("fastapi", "starlette", "pydantic", "uvicorn", "asyncpg", "motor", "python-jose", "sqlalchemy")
CONNECTIONS = 16
FEW_CONNECTIONS = 2
"""For latencies, not throughput: many connections would wait for each other."""


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    name: str
    rows: int
    sizes: tuple[int, ...]
    """The numbers of twins at which the cost is compared."""
    workloads: tuple[str, ...]
    rounds: int
    seconds: int
    warm_up: int
    """Requests to each application before its memory is read."""
    events: int
    renewals: int
    imports: int
    profiled: tuple[str, ...]
    profile_seconds: int = 10


def plans(rows: int | None) -> dict[str, Plan]:
    """Return the profiles, with `rows` twins for the comparison if given."""
    return {
        "full": Plan(
            name="full",
            rows=rows or 100_000,
            sizes=(1_000, 10_000, 100_000, 1_000_000),
            workloads=workloads.ALL,
            rounds=5,
            seconds=3,
            warm_up=10_000,
            events=100_000,
            renewals=100_000,
            imports=11,
            profiled=("gate", "get", "list, first page", "persona get", "create"),
        ),
        "short": Plan(
            name="short",
            rows=rows or 1_000,
            sizes=(),
            workloads=("gate", "list, deep page", "create"),
            rounds=1,
            seconds=1,
            warm_up=100,
            events=10_000,
            renewals=1_000,
            imports=3,
            profiled=(),
        ),
    }


@dataclass(frozen=True)
class Bench:
    """What the parts of a run have in common: all applications serve the same stores."""

    plan: Plan
    databases: dict[int, Database]
    apps: dict[str, App]
    work: Workloads
    say: Callable[[str], None]

    @property
    def database(self) -> Database:
        """The one of the comparison."""
        return self.databases[self.plan.rows]

    @property
    def ours(self) -> App:
        """The application that is measured."""
        return self.apps["ours"]


def about(plan: Plan) -> dict[str, Any]:
    """Return when, how and on what a run measures, for results.json."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": asdict(plan) | {"connections": CONNECTIONS},
        "machine": _machine(),
        "seconds": 0,
    }


def parts_of(plan: Plan) -> list[str]:
    """Return the names of the parts of a run, in order."""
    left_out = {"profile": not plan.profiled, "growth": not plan.sizes}
    return [name for name in (*PARTS, *ALONE) if not left_out.get(name)]


def run(names: Sequence[str], plan: Plan, stack: Stack, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Measure parts of a run, and yield what belongs into results.json, part by part."""
    say("Filling the stores …")
    sizes = plan.sizes if "growth" in names else ()
    databases = {rows: stack.database(rows) for rows in sorted({plan.rows, *sizes})}
    with _applications({name: App(name, databases[plan.rows]) for name in APPS}) as apps:
        bench = Bench(plan, databases, apps, Workloads(apps["ours"]), say)
        say(f"Warming up, {plan.warm_up} requests each …")
        yield {"rss_mb": {name: _warm_up(app, bench.work, plan.warm_up) for name, app in apps.items()}}
        yield from _measured(names, PARTS, bench)
    yield from _measured(names, ALONE, bench)


def _measured(names: Sequence[str], parts: Mapping[str, "_Part"], bench: Bench) -> Iterator[dict[str, Any]]:
    for name in filter(parts.__contains__, names):
        text, measure = parts[name]
        bench.say(f"{text} …")
        yield {name: measure(bench)}


@contextlib.contextmanager
def _applications[Key](apps: dict[Key, App]) -> Iterator[dict[Key, App]]:
    with contextlib.ExitStack() as running:
        for app in apps.values():
            running.enter_context(app)
        yield apps


def _machine() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.processor(),
        "processors": os.cpu_count(),
        "server_pinned_to": server_cpu(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _warm_up(app: App, work: Workloads, requests: int) -> float:
    """Answer some requests, and return the resident memory in MB."""
    load, answered = work.of(app, "gate"), 0
    while answered < requests:
        answered += app.run(load, 1, CONNECTIONS).requests
    return round(app.process.memory_info().rss / 1e6, 1)


def rounds[Key](
    count: int, seconds: int, loads: dict[Key, tuple[App, list[bytes]]], connections: int = CONNECTIONS
) -> dict[Key, list[dict[str, float]]]:
    """Load each in turn, again and again, so that other work on the machine slows all of them alike."""
    outcomes: dict[Key, list[dict[str, float]]] = {key: [] for key in loads}
    keys = list(loads)
    for number in range(count):
        first = number % len(keys)
        for key in [*keys[first:], *keys[:first]]:
            app, requests = loads[key]
            outcomes[key].append(_figures(app.run(requests, seconds, connections)))
    return outcomes


def _throughput(bench: Bench) -> dict[str, Any]:
    plan = bench.plan
    found = {}
    for name in plan.workloads:
        bench.say(f"{name}: {plan.rounds} rounds …")
        loads = {label: (app, bench.work.of(app, name)) for label, app in bench.apps.items()}
        found[name] = rounds(plan.rounds, plan.seconds, loads)
    return found


def _figures(outcome: Outcome) -> dict[str, float]:
    return {
        "rate": round(outcome.rate, 1),
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "cpu_us": round(outcome.cpu_us, 1),
    }


def _ledger(bench: Bench) -> dict[str, Any]:
    plan, app, work = bench.plan, bench.ours, bench.work
    owner, twin_id = data.owner(0), data.some_twins(app.database.owner_dsn, data.owner(0), 1)[0]
    data.add_events(app.database.owner_dsn, twin_id, owner, plan.events)
    verification = work.request("GET", f"{workloads.TWINS}/{twin_id}/ledger/verification", owner)
    gate = work.of(app, "gate")
    idle, verifying, times = [], [], []
    stop = threading.Event()

    def verify() -> None:
        while not stop.is_set():
            before = time.monotonic()
            answer = workloads.check(app, verification)
            times.append(round(time.monotonic() - before, 3))
            assert answer["valid"], answer
            assert answer["events"] > plan.events, answer

    for _ in range(plan.rounds):
        idle.append(_figures(app.run(gate, plan.seconds, FEW_CONNECTIONS)))
        stop.clear()
        thread = threading.Thread(target=verify)
        thread.start()
        verifying.append(_figures(app.run(gate, plan.seconds, FEW_CONNECTIONS)))
        stop.set()
        thread.join()
    return {"events": plan.events, "idle": idle, "verifying": verifying, "verification_s": times}


def _neighbour(bench: Bench) -> dict[str, Any]:
    plan, database, work = bench.plan, bench.database, bench.work
    bounded = {name: value for name, value in database.environment.items() if name not in UNBOUNDED}
    with App("ours", replace(database, environment=bounded)) as app:
        gate = app, work.of(app, "gate")
        found: dict[str, Any] = rounds(plan.rounds, plan.seconds, {"idle": gate}, FEW_CONNECTIONS)
        loud = f"http://{LOCALHOST}:{app.port}", database.token(neighbour.LOUD)
        loud_work = neighbour.prepare(*loud, database.owner_dsn, plan.events // 10)
        with neighbour.beside(*loud, loud_work) as answers:
            found |= rounds(plan.rounds, plan.seconds, {"beside": gate}, FEW_CONNECTIONS)
    found["answers"] = {kind: {str(status): count for status, count in seen.items()} for kind, seen in answers.items()}
    return found


def _consents(bench: Bench, attributes: str = "") -> dict[str, Any]:
    """Ask the gate about a twin with one consent and one with many."""
    app, work = bench.ours, bench.work
    few, many = data.some_twins(app.database.owner_dsn, data.owner(1), 2)
    data.add_consents(app.database.owner_dsn, many, data.owner(1))

    def gate(twin_id: UUID, *purposes: str) -> tuple[App, list[bytes]]:
        path = f"{workloads.TWINS}/{twin_id}/decision?purpose="
        return app, [work.request("GET", path + purpose + attributes, data.owner(1)) for purpose in purposes]

    loads = {
        "1": gate(few, "general"),
        str(data.MANY): gate(many, *(f"purpose-{number}" for number in range(2, data.MANY, 20))),
    }
    return rounds(bench.plan.rounds, bench.plan.seconds, loads, FEW_CONNECTIONS)


def _tokens(bench: Bench) -> dict[str, Any]:
    """Load the gate with tokens of both kinds, once they are verified, of services that ask about others' twins.

    In many short rounds: the difference is smaller than what two rounds of one kind differ by.
    """
    database, work = bench.database, bench.work
    with issuer.published() as published:
        table = {"AUTH_ISSUERS": published.table}
        with App("ours", replace(database, environment=database.environment | table)) as app:
            loads = {
                "HS256": (app, work.gate_by(lambda name: database.token(f"service of {name}", DECIDE))),
                "RS256": (app, work.gate_by(lambda name: published.token(name, DECIDE))),
            }
            for _, requests in loads.values():
                app.run(requests, 1, CONNECTIONS)
            return rounds(6 * bench.plan.rounds, 1, loads)


def _telemetry(bench: Bench) -> dict[str, Any]:
    """Load ours with exporters that drop everything, beside ours without."""
    plan, off, work = bench.plan, bench.ours, bench.work
    with App("telemetry", bench.database) as on:
        on.run(work.of(on, "gate"), 1, CONNECTIONS)
        return {
            name: rounds(plan.rounds, plan.seconds, {"off": (off, work.of(off, name)), "on": (on, work.of(on, name))})
            for name in ("gate", "create")
        }


def _profiles(bench: Bench) -> dict[str, Any]:
    """Return where the event loop's time goes."""
    return {
        name: profiler.shares(bench.ours, bench.work.of(bench.ours, name), bench.plan.profile_seconds)
        for name in bench.plan.profiled
    }


def _cold_starts(bench: Bench) -> list[dict[str, float]]:
    """Return the phases of each start, in a new process."""
    database = bench.database
    owner = data.owner(0)
    twin_id = data.some_twins(database.owner_dsn, owner, 1)[0]
    return [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "bench.cold", f"{workloads.TWINS}/{twin_id}/decision", database.token(owner)],
                cwd=ROOT,
                env=os.environ | database.environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(bench.plan.imports)
    ]


def _growth(bench: Bench) -> dict[str, Any]:
    """Send the same requests to databases of different sizes."""
    plan, databases = bench.plan, [bench.databases[rows] for rows in bench.plan.sizes]
    found: dict[str, Any] = {"plans": {str(one.rows): data.gate_plan(one.owner_dsn) for one in databases}}
    with _applications({str(one.rows): App("ours", one) for one in databases}) as apps:
        works = {rows: Workloads(app) for rows, app in apps.items()}
        for app in apps.values():
            _warm_up(app, works[str(app.database.rows)], plan.warm_up)
        for name in GROWN:
            loads = {rows: (app, works[rows].of(app, name)) for rows, app in apps.items()}
            found[name] = rounds(plan.rounds, plan.seconds, loads, FEW_CONNECTIONS)
    return found


def _imports(bench: Bench) -> dict[str, list[float]]:
    """Return the milliseconds of each import alone, in a new interpreter."""
    statements = {"function_app": "import function_app", "libraries": LIBRARIES}
    found: dict[str, list[float]] = {name: [] for name in statements}
    for number in range(bench.plan.imports + 1):
        for name, statement in statements.items():
            code = f"import time; t = time.perf_counter(); {statement}; print((time.perf_counter() - t) * 1e3)"
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env=os.environ | bench.database.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            if number:  # the first one may have compiled
                found[name].append(round(float(done.stdout), 1))
    return found


type _Part = tuple[str, Callable[[Bench], Any]]

PARTS: dict[str, _Part] = {
    "throughput": ("The applications in turn", _throughput),
    "ledger": ("The gate, while a ledger is verified", _ledger),
    "consents": ("The gate of a twin with many consents", _consents),
    "consents, all attributes": ("The same with all attributes", lambda bench: _consents(bench, workloads.ATTRIBUTES)),
    "renewals": (
        "A no on a consent that has been renewed often",
        lambda bench: renewals.run(bench.ours, bench.plan.renewals),
    ),
    "tokens": ("The gate by tokens of a secret and of an identity provider", _tokens),
    "telemetry": ("With telemetry and without", _telemetry),
    "profile": ("Profiling", _profiles),
}
"""What is measured while the applications run, by its name in results.json."""
ALONE: dict[str, _Part] = {
    # The others' rounds of background work, each 2 s on the same processor, would be measured.
    "neighbour": ("The gate, while another account does its worst", _neighbour),
    "growth": ("The same requests to databases of different sizes", _growth),
    "import_ms": ("Import times", _imports),
    "cold_start_ms": ("Cold starts", _cold_starts),
}
"""What is measured after that."""
