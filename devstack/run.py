"""`make run` and `make migrate`: the stores, the migrations and the app, up and down in order."""

import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Literal
from urllib.parse import unquote, urlsplit

from devstack import local
from devstack.bearer import bearer, settings
from devstack.mongod import Mongod
from devstack.postgres import Postgres
from devstack.process import LOCALHOST, StackError, port_is_free

PROVIDER = "oidc-provider"
READY_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

type Host = Literal["app", "functions"]
type Requests = dict[int, FrameType | None]
"""Signals that asked for a stop, and what they interrupted."""


def run(host: Host, port: int) -> None:
    """Serve on `port` until Ctrl-C, SIGTERM or SIGHUP, then stop everything that was started.

    Raises:
        StackError: something did not start, or the app ended by itself.
        ConfigurationError: a setting in the environment is unusable.
    """
    settings()  # says what is wrong with one better, and earlier, than the app's traceback would
    stop = _requests_to_stop()
    try:
        _serve(host, port, stop)
    except StackError:
        if not stop:  # else a part that was still starting has met the signal itself
            raise
    print("Stopped.")


def migrate() -> None:
    """Bring both stores to the newest revision: those of the environment, or this machine's own.

    Raises:
        StackError: a store did not start, or a migration failed.
    """
    _requests_to_stop()  # asked to stop or not, it finishes first, which takes seconds
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_stores(stack.enter_context(local.claim(timeout=0))))
        except local.HeldError as held:
            _use_running_stores(held)
        _migrate()


def write_local_settings() -> None:
    """Write local.settings.json for `func start`: the example with the running stores and this machine's secrets.

    Raises:
        StackError: no store is running here, and none is named in the environment.
    """
    if not (os.environ.get("POSTGRES_DSN") and os.environ.get("MONGODB_URI")):
        try:
            with local.claim(timeout=0):
                raise StackError("no store is running: start them first, with make run")
        except local.HeldError as held:
            _use_running_stores(held)
    document = json.loads((local.ROOT / "local.settings.example.json").read_text())
    document["Values"] |= {name: os.environ[name] for name in document["Values"] if os.environ.get(name)}
    file = local.ROOT / "local.settings.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(document, indent=2) + "\n")
    print(f"Wrote {file.name}. Now, with .venv activated: func start --port 7072 (make run keeps its own)")


def _serve(host: Host, port: int, stop: Requests) -> None:
    url = f"http://{LOCALHOST}:{port}"
    os.environ["PUBLIC_URL"] = os.environ.get("PUBLIC_URL") or url
    with local.claim() as claim:
        if not port_is_free(port):
            raise StackError(
                f"port {port} is taken by another program. Stop it, or choose another port: PORT={port + 1}"
            )
        with _stores(claim), _provider(claim):
            _migrate()
            with _app(host, port) as app:
                if _becomes_ready(app, port, stop):
                    claim.publish_url(url)
                    _welcome(url)
                while app.poll() is None and not stop:
                    time.sleep(0.1)
                if not stop:
                    raise StackError(f"the app ended by itself ({_outcome(app.returncode)})")


def _requests_to_stop() -> Requests:
    """Return what stays empty until this process is asked to stop."""
    requests: Requests = {}
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup has it ignored
        numbers.append(signal.SIGHUP)
    for number in numbers:
        # Not a function in Python: Python runs the handler of the next signal inside that of the one
        # before, which then waits for ever for a lock that the outer one holds, or recurses too deep.
        signal.signal(number, requests.setdefault)
    if "MAKELEVEL" in os.environ:
        threading.Thread(target=_watch_make, args=(os.getppid(), requests), daemon=True).start()
    return requests


def _watch_make(make: int, requests: Requests) -> None:
    """Stop when `make` is gone: nobody would know any more that this is running."""
    while os.getppid() == make:
        time.sleep(0.5)
    requests[signal.SIGHUP] = None


@contextlib.contextmanager
def _stores(claim: local.Claim) -> Iterator[None]:
    """Start each store that the environment does not name, and name it there."""
    with contextlib.ExitStack() as stack:
        if not os.environ.get("POSTGRES_DSN"):
            postgres = Postgres(local.FOLDER / "postgres", claim.last_ports.get("postgres"))
            stack.enter_context(postgres)
            claim.publish("postgres", postgres.port)
            _use_postgres(postgres)
        if not os.environ.get("MONGODB_URI"):
            mongod = Mongod(local.FOLDER / "mongod", claim.last_ports.get("mongod"))
            stack.enter_context(mongod)
            claim.publish("mongod", mongod.port)
            os.environ["MONGODB_URI"] = mongod.uri
        yield


@contextlib.contextmanager
def _provider(claim: local.Claim) -> Iterator[None]:
    """Where OIDC is set, start an identity provider, and name it to the app beside those of the environment."""
    if os.environ.get("OIDC"):
        from devstack.provider import Provider  # noqa: PLC0415 - needs what `make run` does not install

        with Provider(local.FOLDER / PROVIDER, claim.last_ports.get(PROVIDER)) as provider:
            claim.publish(PROVIDER, provider.port)
            others = json.loads(os.environ.get("AUTH_ISSUERS") or "[]")
            os.environ["AUTH_ISSUERS"] = json.dumps([*others, provider.entry()])
            yield
    else:
        yield


def token_of_provider(subject: str, scope: str) -> str:
    """Sign in to the provider that runs here, and return the access token.

    Raises:
        StackError: none runs, or it refuses.
    """
    from devstack.provider import sign_in  # noqa: PLC0415

    if not subject.strip():
        raise StackError('whose token? Say it: make token OIDC=1 SUB=alice [SCOPE="…"]')
    try:
        with local.claim(timeout=0):
            port = None
    except local.HeldError as held:
        port = held.ports.get(PROVIDER)
    if port is None:
        raise StackError("no identity provider is running: start it first, with make run OIDC=1")
    return sign_in(f"http://{LOCALHOST}:{port}", subject, scope)


def _use_running_stores(held: local.HeldError) -> None:
    try:
        if not os.environ.get("POSTGRES_DSN"):
            _use_postgres(Postgres(local.FOLDER / "postgres", held.ports["postgres"]))
        if not os.environ.get("MONGODB_URI"):
            os.environ["MONGODB_URI"] = Mongod(local.FOLDER / "mongod", held.ports["mongod"]).uri
    except KeyError:
        raise held from None


def _use_postgres(postgres: Postgres) -> None:
    os.environ["POSTGRES_DSN"] = postgres.dsn
    os.environ["MIGRATIONS_POSTGRES_DSN"] = postgres.owner_dsn


def _migrate() -> None:
    _migrations("upgrade")
    owner = urlsplit(os.environ.get("MIGRATIONS_POSTGRES_DSN", "")).username
    serving = urlsplit(os.environ["POSTGRES_DSN"]).username
    if owner and serving and owner != serving:
        _migrations("grant", unquote(serving))


def _migrations(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migrations", *arguments],
        cwd=local.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C lets it finish
    )
    if done.returncode:
        raise StackError(f"migrations {' '.join(arguments)} failed:\n{done.stdout.rstrip()}")


@contextlib.contextmanager
def _app(host: Host, port: int) -> Iterator[subprocess.Popen[bytes]]:
    app = subprocess.Popen(
        [sys.executable, "-m", "devstack.serve", host, str(port)],
        cwd=local.ROOT,
        stdin=subprocess.PIPE,  # open for as long as this process lives, which is what the app watches
        start_new_session=True,
        # Serving never sees the owner's password.
        env={name: value for name, value in os.environ.items() if name != "MIGRATIONS_POSTGRES_DSN"},
    )
    try:
        yield app
    finally:
        app.terminate()
        try:
            app.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            app.kill()
            app.wait()


def _becomes_ready(app: subprocess.Popen[bytes], port: int, stop: Requests) -> bool:
    """Wait for `/ready`; False when the app ended or is to stop before."""
    deadline = time.monotonic() + READY_TIMEOUT
    answer = "no answer"
    while app.poll() is None and not stop:
        # Not urllib, which would ask a proxy of the environment.
        with contextlib.closing(http.client.HTTPConnection(LOCALHOST, port, timeout=5)) as connection:
            try:
                connection.request("GET", "/ready")
                response = connection.getresponse()
                if response.status == http.HTTPStatus.OK:
                    return True
                answer = f"{response.status} {response.read().decode(errors='replace')}"
            except (OSError, http.client.HTTPException):
                pass  # not listening yet
        if time.monotonic() > deadline:
            raise StackError(f"the app is not ready after {READY_TIMEOUT:.0f} s: {answer}")
        time.sleep(0.05)
    return False


def _welcome(url: str) -> None:
    twin = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
    curl = shlex.join(
        [
            *("curl", "-sS", "-i", f"{url}/api/v1/twins"),
            *("-H", f"Authorization: Bearer {bearer('alice')}"),
            *("-H", "Content-Type: application/json"),
            *("-d", json.dumps(twin)),
        ]
    )
    print(f"\nTwins is up. The documentation is at {url}/docs\n\nCreate a twin:\n\n{curl}\n")
    if os.environ.get("OIDC"):
        print("Sign in to the identity provider, in another terminal:\n\nTOKEN=$(make token OIDC=1 SUB=alice)\n")
    print("Ctrl-C stops it.")


def _outcome(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
