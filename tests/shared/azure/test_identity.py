import asyncio
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import SecretStr

from shared import kept
from shared.azure.identity import DATABASE_SCOPE, EARLY, EntraToken, VaultSecret, mongo_options
from shared.http.problems import Unavailable
from tests.support.azure_server import (
    ERROR_TEXT,
    VAULT_HOST,
    VAULT_TOKEN,
    Credential,
    DocumentDb,
    Fault,
    IdentityEndpoint,
    KeyVault,
)
from twins.app import create_app
from twins.settings import Settings

NAME = "jwt-secret"
FIRST, SECOND, THIRD = (f"{word}-key-of-enough-bytes-for-hs256" for word in ("first", "second", "third"))
LOGGER = "shared"


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "postgres_dsn": SecretStr("postgresql://nobody@localhost/none"),
        "mongodb_uri": SecretStr("mongodb://localhost/"),
        "digest_key": SecretStr("d" * 32),
        "key_vault_url": f"https://{VAULT_HOST}",
        "key_vault_refresh": 0.05,
    }
    return Settings(**(values | changes))


async def eventually(holds: Callable[[], bool], within: float = 3) -> None:
    async with asyncio.timeout(within):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def vault() -> AsyncIterator[KeyVault]:
    # The SDK remembers challenges for the process; each test starts like a new one.
    from azure.keyvault.secrets._shared import http_challenge_cache

    http_challenge_cache.clear()
    async with KeyVault() as server:
        yield server


type Open = Callable[..., VaultSecret]


@pytest.fixture
async def secret(vault: KeyVault) -> AsyncIterator[Open]:
    """A reader of the vault's secret, by the real client over TLS that is verified."""
    async with AsyncExitStack() as stack:

        def open_secret(**changes: Any) -> VaultSecret:
            transport = changes.pop("transport", None) or vault.transport()
            stack.push_async_callback(transport.session.close)
            options: dict[str, Any] = {
                "credential": Credential(VAULT_TOKEN),
                "timeout": 2,
                "pause": 0.05,
            } | changes
            configured = options.pop("settings", None) or settings()
            return VaultSecret(configured, NAME, transport=transport, **options)

        yield open_secret


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


async def changed(reader: VaultSecret, old: tuple[str, ...]) -> tuple[str, ...]:
    """Use the reader until its values are not `old` any more."""
    async with asyncio.timeout(3):
        while True:
            values = await reader.values()
            if values is not old:
                return values
            await asyncio.sleep(0.01)


async def recovered[T](call: Callable[[], Awaitable[T]]) -> T:
    """Call again while it is unavailable."""
    async with asyncio.timeout(3):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.02)


def retry_after(error: pytest.ExceptionInfo[Unavailable]) -> int:
    return int(error.value.headers["Retry-After"])


# Key Vault: the first read


async def test_a_hundred_concurrent_first_requests_make_one_read(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret(settings=settings(key_vault_refresh=300))
    results = await asyncio.gather(*(reader.values() for _ in range(100)))
    assert results == [(FIRST,)] * 100
    assert vault.requests == {"challenged": 1, "listed": 1, "read": 1}


async def test_a_vault_that_is_down_at_start_is_unavailable_until_it_is_up(
    vault: KeyVault, secret: Open, caplog: pytest.LogCaptureFixture
) -> None:
    vault.add(NAME, FIRST)
    await vault.stop()
    reader = secret()
    with caplog.at_level("WARNING", LOGGER), pytest.raises(Unavailable) as refused:
        await reader.values()
    assert retry_after(refused) >= 1
    assert caplog.records[-1].error == "ServiceRequestError"  # type: ignore[attr-defined]
    await vault.start()
    assert await recovered(reader.values) == (FIRST,)


async def test_a_slow_vault_holds_first_requests_no_longer_than_the_limit(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    vault.fault = Fault(delay=30)
    reader = secret(timeout=0.3)
    begun = time.monotonic()
    results = await asyncio.gather(*(reader.values() for _ in range(20)), return_exceptions=True)
    assert time.monotonic() - begun < 1
    assert all(isinstance(result, Unavailable) for result in results)
    vault.fault = None
    assert await recovered(reader.values) == (FIRST,)


async def test_a_first_caller_that_gives_up_leaves_the_read_to_the_others(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    vault.fault = Fault(delay=0.1)
    reader = secret()
    impatient = asyncio.create_task(reader.values())
    patient = asyncio.create_task(reader.values())
    await eventually(lambda: vault.requests.total() > 0)
    impatient.cancel()
    assert await patient == (FIRST,)
    assert impatient.cancelled()


async def test_throttling_is_obeyed_for_as_long_as_the_vault_asks(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    vault.fault = Fault(429, headers={"Retry-After": "1"})
    reader = secret()
    before = kept.failures["key_vault", "429"]
    with pytest.raises(Unavailable) as refused:
        await reader.values()
    assert retry_after(refused) == 1
    assert kept.failures["key_vault", "429"] == before + 1
    asked = vault.requests.total()
    vault.fault = None
    for _ in range(50):
        with pytest.raises(Unavailable):
            await reader.values()
    assert vault.requests.total() == asked
    assert await recovered(reader.values) == (FIRST,)


async def test_pauses_grow_with_each_failure_up_to_their_bound(vault: KeyVault, secret: Open) -> None:
    vault.fault = Fault(500)
    reader = secret(pause=1)
    waits = []
    for _ in range(8):
        with pytest.raises(Unavailable) as refused:
            await reader.values()
        waits.append(retry_after(refused))
        reader._due_at = 0  # the pause is over
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    vault.add(NAME, FIRST)
    vault.fault = None
    await reader.values()
    vault.fault = Fault(500)
    reader._due_at = 0
    await reader.values()
    await eventually(lambda: reader._task is None)
    assert 0 < reader._due_at - time.time() <= 1  # a success starts over
    vault.fault = Fault(500, headers={"Retry-After": "86400"})
    with pytest.raises(Unavailable) as refused:
        await secret().values()
    assert retry_after(refused) == 60


@pytest.mark.parametrize(("status", "hint"), [(403, "Key Vault Secrets User"), (404, "no secret of this name")])
async def test_a_refusal_is_a_clear_line_and_a_count_and_no_crash(
    vault: KeyVault, secret: Open, caplog: pytest.LogCaptureFixture, status: int, hint: str
) -> None:
    vault.add(NAME, FIRST)
    vault.fault = Fault(status)
    before = kept.failures["key_vault", str(status)]
    with caplog.at_level("WARNING", LOGGER), pytest.raises(Unavailable):
        await secret().values()
    (line,) = (record for record in caplog.records if record.name.startswith(LOGGER))
    assert line.levelno == logging.ERROR
    assert hint in line.getMessage()
    fields = {name: line.__dict__[name] for name in ("vault", "secret", "status")}
    assert fields == {"vault": VAULT_HOST, "secret": NAME, "status": status}
    assert ERROR_TEXT not in str(line.__dict__)
    assert kept.failures["key_vault", str(status)] == before + 1


async def test_the_sdk_is_imported_in_a_thread(vault: KeyVault, secret: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    importers: dict[str, threading.Thread] = {}
    monkeypatch.setattr(
        "shared.azure.identity.import_module", lambda name: importers.update({name: threading.current_thread()})
    )
    vault.add(NAME, FIRST)
    assert await secret().values() == (FIRST,)

    assert importers.keys() == {"azure.identity.aio", "azure.keyvault.secrets.aio"}
    assert threading.main_thread() not in importers.values()


async def test_an_impostor_without_the_certificate_gets_no_token(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    with pytest.raises(Unavailable):
        await secret(transport=vault.transport(trust=True)).values()
    assert not vault.requests


async def test_a_challenge_for_another_resource_gets_no_token(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    vault.resource = "https://vault.example.com"
    credential = Credential(VAULT_TOKEN)
    with pytest.raises(Unavailable):
        await secret(credential=credential).values()
    assert credential.scopes == []


async def test_a_credential_that_fails_is_unavailable(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    credential = Credential(VAULT_TOKEN)
    credential.error = ClientAuthenticationError("no identity")
    before = kept.failures["key_vault", "ClientAuthenticationError"]
    with pytest.raises(Unavailable):
        await secret(credential=credential).values()
    assert kept.failures["key_vault", "ClientAuthenticationError"] == before + 1


async def test_the_managed_identity_signs_in_to_the_vault(
    vault: KeyVault, secret: Open, identity: IdentityEndpoint
) -> None:
    vault.add(NAME, FIRST)
    vault.tokens = {"token-1"}
    reader = secret(settings=settings(azure_client_id="the-client"), credential=None)
    assert await reader.values() == (FIRST,)
    asked = {name: identity.queries[0][name] for name in ("resource", "client_id")}
    assert asked == {"resource": "https://vault.azure.net", "client_id": "the-client"}


def test_a_vault_needs_an_address() -> None:
    without = settings(key_vault_url=None, jwt_secrets=(SecretStr(FIRST),), receipt_keys=SecretStr("{}"))
    with pytest.raises(ValueError, match="KEY_VAULT_URL"):
        VaultSecret(without, NAME)


# Key Vault: which versions count


async def test_the_current_and_the_previous_version_are_accepted_newest_first(vault: KeyVault, secret: Open) -> None:
    for value in (FIRST, SECOND, THIRD):
        vault.add(NAME, value)
    assert await secret().values() == (THIRD, SECOND)
    assert vault.requests["listed"] == 2  # its two pages


async def test_versions_that_are_disabled_expired_or_not_yet_valid_are_ignored(vault: KeyVault, secret: Open) -> None:
    now = int(time.time())
    vault.add(NAME, FIRST, nbf=now - 60, exp=now + 60)
    vault.add(NAME, "disabled" * 8, enabled=False)
    vault.add(NAME, "expired" * 8, exp=now - 1)
    vault.add(NAME, "not-yet-valid" * 8, nbf=now + 60)
    assert await secret().values() == (FIRST,)


async def test_a_short_value_is_refused_and_changes_nothing_else(
    vault: KeyVault, secret: Open, caplog: pytest.LogCaptureFixture
) -> None:
    vault.add(NAME, FIRST)
    vault.add(NAME, SECOND)
    short = vault.add(NAME, "k" * 31)
    with caplog.at_level("ERROR", LOGGER):
        assert await secret().values() == (SECOND, FIRST)
    (line,) = caplog.records
    assert line.__dict__["secret"] == NAME
    assert line.__dict__["version"] == short.id
    assert short.value not in str(line.__dict__)


@pytest.mark.parametrize("attributes", [{"enabled": False}, {"exp": 1}, {"value": "short"}])
async def test_a_secret_with_no_usable_version_is_unavailable(
    vault: KeyVault, secret: Open, caplog: pytest.LogCaptureFixture, attributes: dict[str, Any]
) -> None:
    vault.add(NAME, **({"value": FIRST} | attributes))
    with caplog.at_level("ERROR", LOGGER), pytest.raises(Unavailable):
        await secret().values()
    assert "no version is enabled, valid now and long enough" in caplog.records[-1].getMessage()


# Key Vault: refreshing


async def test_a_rotated_secret_is_picked_up_without_a_restart(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret()
    old = await reader.values()
    vault.add(NAME, SECOND)
    assert await changed(reader, old) == (SECOND, FIRST)


async def test_the_tuple_is_the_same_object_while_nothing_changes(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret()
    first = await reader.values()
    for _ in range(3):
        listed = vault.requests["listed"]
        async with asyncio.timeout(3):
            while vault.requests["listed"] == listed:
                assert await reader.values() is first
                await asyncio.sleep(0.01)
    assert await reader.values() is first


async def test_a_version_that_is_disabled_is_dropped_at_the_next_refresh(vault: KeyVault, secret: Open) -> None:
    leaked = vault.add(NAME, FIRST)
    vault.add(NAME, SECOND)
    reader = secret()
    old = await reader.values()
    leaked.enabled = False
    assert await changed(reader, old) == (SECOND,)


async def test_a_secret_whose_last_version_is_disabled_is_not_accepted_any_more(vault: KeyVault, secret: Open) -> None:
    leaked = vault.add(NAME, FIRST)
    reader = secret()
    old = await reader.values()
    leaked.enabled = False
    with pytest.raises(Unavailable):
        await changed(reader, old)
    vault.add(NAME, SECOND)
    assert await recovered(reader.values) == (SECOND,)


@pytest.mark.parametrize("fault", [Fault(429), Fault(403), Fault(500)])
async def test_a_vault_that_fails_later_leaves_what_there_is(
    vault: KeyVault, secret: Open, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    vault.add(NAME, FIRST)
    reader = secret()
    old = await reader.values()
    vault.fault = fault
    key = ("key_vault", str(fault.status))
    before = kept.failures[key]
    with caplog.at_level("WARNING", LOGGER):
        async with asyncio.timeout(3):
            while kept.failures[key] == before:
                assert await reader.values() is old
                await asyncio.sleep(0.01)
    assert await reader.values() is old
    assert all(text not in caplog.text for text in (ERROR_TEXT, FIRST))
    vault.fault = None
    vault.add(NAME, SECOND)
    assert await changed(reader, old) == (SECOND, FIRST)


async def test_a_vault_that_goes_away_later_leaves_what_there_is(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret()
    old = await reader.values()
    await vault.stop()
    before = kept.failures["key_vault", "ServiceRequestError"]
    async with asyncio.timeout(3):
        while kept.failures["key_vault", "ServiceRequestError"] < before + 2:
            assert await reader.values() is old
            await asyncio.sleep(0.01)
    vault.add(NAME, SECOND)
    await vault.start()
    assert await changed(reader, old) == (SECOND, FIRST)


async def test_a_refresh_never_holds_up_a_request(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret(settings=settings(key_vault_refresh=2.0))
    old = await reader.values()
    vault.add(NAME, SECOND)
    vault.fault = Fault(delay=0.2)
    await asyncio.sleep(2.0)
    asked = vault.requests.total()
    longest = 0.0
    calls = 0
    values = old
    while values is old:
        begun = time.perf_counter()
        values = await reader.values()
        longest = max(longest, time.perf_counter() - begun)
        calls += 1
        await asyncio.sleep(0.005)
    assert values == (SECOND, FIRST)
    assert calls > 20  # the refresh took its time, three requests of 0.2 s
    assert longest < 0.15
    assert vault.requests.total() - asked <= 4  # one task at a time


async def idled(reader: VaultSecret, seconds: float) -> None:
    """Let the values age, as they do while an instance is frozen."""
    await eventually(lambda: reader._task is None)
    for name in ("_due_at", "_stale_at", "_expires_at"):
        setattr(reader, name, getattr(reader, name) - seconds)


async def test_an_instance_that_was_idle_asks_the_vault_before_it_accepts_a_key(vault: KeyVault, secret: Open) -> None:
    leaked = vault.add(NAME, FIRST)
    vault.add(NAME, SECOND)
    reader = secret(settings=settings(key_vault_refresh=300), max_age=3600)
    assert await reader.values() == (SECOND, FIRST)
    asked = vault.requests["listed"]
    leaked.enabled = False
    await idled(reader, 10 * 3600)
    vault.fault = Fault(delay=0.05)

    assert set(await asyncio.gather(*(reader.values() for _ in range(20)))) == {(SECOND,)}
    assert vault.requests["listed"] == 2 * asked  # one read for all of them


async def test_a_stale_value_serves_on_where_the_vault_does_not_answer_in_time(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret(settings=settings(key_vault_refresh=300), max_age=3600, timeout=0.2)
    old = await reader.values()
    await idled(reader, 700)
    vault.fault = Fault(delay=30)

    begun = time.monotonic()
    assert await reader.values() is old
    assert 0.15 < time.monotonic() - begun < 1
    begun = time.monotonic()
    assert await reader.values() is old  # until the next read is due nobody waits again
    assert time.monotonic() - begun < 0.05


@pytest.mark.parametrize(("max_age", "serves"), [(3600, False), (math.inf, True)])
async def test_past_its_greatest_age_a_value_serves_no_more_while_the_vault_is_away(
    vault: KeyVault, secret: Open, max_age: float, serves: bool
) -> None:
    vault.add(NAME, FIRST)
    reader = secret(settings=settings(key_vault_refresh=300), max_age=max_age)
    old = await reader.values()
    await vault.stop()
    await idled(reader, 3601)

    if serves:
        assert await reader.values() is old
        return
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await reader.values()
        assert retry_after(refused) >= 1
    await vault.start()
    assert await recovered(reader.values) == (FIRST,)


async def test_only_keys_that_verify_tokens_have_a_greatest_age() -> None:
    app = create_app(settings(key_vault_refresh=300, key_vault_max_age=900))
    verify, sign = app.state.context.authenticator._secrets.source, app.state.context.signer._source

    assert (verify._max_age, sign._max_age) == (900, math.inf)


async def test_the_steady_state_costs_next_to_nothing(vault: KeyVault, secret: Open) -> None:
    vault.add(NAME, FIRST)
    reader = secret(settings=settings(key_vault_refresh=300))
    await reader.values()
    begun = time.thread_time()  # of the processor: the machine may have other things to do
    for _ in range(10_000):
        await reader.values()
    assert (time.thread_time() - begun) / 10_000 < 10e-6


# Microsoft Entra tokens


async def test_a_hundred_connections_share_one_token_of_the_managed_identity(
    identity: IdentityEndpoint,
) -> None:
    token = EntraToken(settings(azure_client_id="the-client"))
    assert set(await asyncio.gather(*(token() for _ in range(100)))) == {"token-1"}
    (query,) = identity.queries
    assert query["resource"] == "https://ossrdbms-aad.database.windows.net"
    assert query["client_id"] == "the-client"


@pytest.mark.parametrize("fault", [Fault(500), Fault(429, headers={"Retry-After": "9"}), Fault(delay=30)])
async def test_an_identity_endpoint_that_fails_is_unavailable_within_the_limit_and_recovers(
    identity: IdentityEndpoint, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    identity.fault = fault
    token = EntraToken(settings(), timeout=0.3, pause=0.05)
    begun = time.monotonic()
    with caplog.at_level("WARNING", LOGGER), pytest.raises(Unavailable):
        await token()
    assert time.monotonic() - begun < 1
    (line,) = (record for record in caplog.records if record.name.startswith(LOGGER))
    assert line.levelno == logging.WARNING
    assert line.__dict__["scope"] == DATABASE_SCOPE
    identity.fault = None
    assert await recovered(token) == "token-1"


async def test_a_token_near_its_end_is_used_while_the_next_one_is_fetched() -> None:
    credential = Credential("old", lifetime=EARLY - 1)
    token = EntraToken(settings(), credential=credential, pause=0.3)
    for _ in range(20):
        assert await token() == "old"
        await asyncio.sleep(0)
    assert len(credential.scopes) == 1  # an endpoint that gives short tokens is not flooded
    credential.token, credential.delay, credential.lifetime = "new", 0.2, 3600
    await asyncio.sleep(0.35)
    begun = time.perf_counter()
    assert await token() == "old"
    assert time.perf_counter() - begun < 0.15
    async with asyncio.timeout(3):
        while (current := await token()) != "new":
            assert current == "old"
            await asyncio.sleep(0.01)
    assert credential.scopes == [DATABASE_SCOPE] * 2


async def test_a_fresh_token_is_not_fetched_again() -> None:
    credential = Credential()
    token = EntraToken(settings(), credential=credential, pause=0)
    for _ in range(10):
        await token()
        await asyncio.sleep(0)
    assert len(credential.scopes) == 1


@pytest.mark.parametrize("trouble", ["failing", "slow"])
async def test_a_token_serves_to_its_end_while_the_endpoint_is_in_trouble(trouble: str) -> None:
    credential = Credential("old", lifetime=1)
    token = EntraToken(settings(), credential=credential, timeout=0.2, pause=0.02)
    begun = time.time()
    assert await token() == "old"
    if trouble == "failing":
        credential.error = ClientAuthenticationError("the endpoint is down")
    else:
        credential.delay = 30
    served = 0
    while time.time() < begun + 0.7:
        assert await token() == "old"
        served += 1
        await asyncio.sleep(0.01)
    assert served > 10
    assert len(credential.scopes) > 1
    await asyncio.sleep(begun + 1.05 - time.time())
    waited = time.monotonic()
    with pytest.raises(Unavailable):
        await token()
    assert time.monotonic() - waited < 0.5
    credential.error, credential.delay, credential.token = None, 0, "new"
    assert await recovered(token) == "new"


async def test_a_token_that_has_expired_already_is_refused() -> None:
    with pytest.raises(Unavailable):
        await EntraToken(settings(), credential=Credential(lifetime=-1))()


# MONGODB-OIDC


async def sign_in(server: DocumentDb, token: EntraToken) -> Any:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.uri, timeoutMS=3000, **mongo_options(token))
    try:
        return await client.admin.command("ping")
    finally:
        client.close()


async def test_motor_signs_in_with_the_entra_token(identity: IdentityEndpoint) -> None:
    async with DocumentDb() as server:
        server.accepted = {"token-1"}
        assert (await sign_in(server, EntraToken(settings())))["ok"] == 1
        assert server.presented == ["token-1"]
        assert identity.queries[0]["resource"] == "https://ossrdbms-aad.database.windows.net"


async def test_motor_gets_unavailable_when_there_is_no_token() -> None:
    credential = Credential()
    credential.error = ClientAuthenticationError("the endpoint is down")
    async with DocumentDb() as server:
        with pytest.raises(Unavailable):
            await sign_in(server, EntraToken(settings(), credential=credential))
        assert server.presented == []


# Cold start


def test_importing_the_module_does_not_import_the_sdk() -> None:
    program = "import sys, shared.azure.identity; print([name for name in sys.modules if name.startswith('azure')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert result.stdout.strip() == "[]"
