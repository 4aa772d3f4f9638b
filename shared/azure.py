"""Secrets from Key Vault and tokens from Microsoft Entra, kept fresh; the only azure SDK site.

The SDK costs a quarter of a second to import, so it is imported at the first read and not at a
cold start that does not need it. A credential and a client live for one read: reads are minutes
apart, nothing stays open that nobody would close (Azure Functions ends a worker without an ASGI
shutdown), and nothing is bound to an event loop before there is one.
"""

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, override
from urllib.parse import urlsplit

from pymongo.auth_oidc import OIDCCallback, OIDCCallbackContext, OIDCCallbackResult

from shared.errors import Unavailable
from shared.settings import MIN_KEY_BYTES, Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.keyvault.secrets import SecretProperties

logger = logging.getLogger(__name__)

type CredentialFactory = Callable[[], AsyncTokenCredential]

DATABASE_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
"""What tokens for Azure Database for PostgreSQL and for Azure DocumentDB are asked for."""

TIMEOUT = 4.0
"""How long one read may take, and so how long a request may wait for it."""
PAUSE = 1.0
"""How long after a failure the next read waits; it doubles with each further failure."""
LONGEST_PAUSE = 60.0
"""Bound of that wait, a server's `Retry-After` included: an instance mends itself within it."""
EARLY = 300.0
"""How long before its end a token is replaced; azure-identity uses the same five minutes."""

failures: Counter[tuple[str, str]] = Counter()
"""Failed reads by service and `error.type` (OpenTelemetry: the status code, else the class)."""


class _Kept[T](ABC):
    """A value from Azure, read once for all who wait for it and then kept fresh.

    One task reads at a time, within `timeout` seconds. Once there is a value no caller waits: a
    value that is due is read anew in the background, and serves on until it expires when that
    fails. azure-identity's own cache refreshes in the caller's time, once for each concurrent
    caller and with retries of ten seconds and more.
    """

    _service: ClassVar[str]
    _failure: ClassVar[str]
    _hints: ClassVar[Mapping[str, str]] = {}
    """What a person has to do, by `error.type`."""

    def __init__(self, labels: Mapping[str, str], timeout: float, pause: float) -> None:
        self._labels = labels
        self._timeout = timeout
        self._pause = pause
        self._value: T | None = None
        # Seconds since the epoch: tokens end by that clock, also while an instance is frozen.
        self._due_at = 0.0
        self._expires_at = math.inf
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _read(self) -> tuple[T, float, float]:
        """Read the value; return it with when it is due to be read anew and when it expires."""

    async def _get(self, *, wait: bool = True) -> T:
        now = time.time()
        if now >= self._due_at and self._task is None:
            self._task = asyncio.create_task(self._refresh())
        value = self._value
        if value is None or now >= self._expires_at:
            return await self._next(wait=wait)
        return value

    async def _next(self, *, wait: bool) -> T:
        if wait and self._task is not None:
            # Unlike awaiting the task, this does not cancel the others' read with this caller.
            await asyncio.wait({self._task})
        now = time.time()
        if self._value is None or now >= self._expires_at:
            raise Unavailable(f"{self._failure}.", retry_after=max(1, math.ceil(self._due_at - now)))
        return self._value

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                value, due_at, self._expires_at = await self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, requests go on and it is logged
            self._note(error)
        else:
            self._failures = 0
            self._due_at = max(due_at, time.time() + self._pause)
            if value != self._value:  # callers compare by identity
                self._value = value
        finally:
            self._task = None

    def _note(self, error: Exception) -> None:
        """Count and log a failure, without the SDK's text, and set when to try again."""
        status = getattr(error, "status_code", None)
        kind = str(status or type(error).__name__)
        failures[self._service, kind] += 1
        pause = max(self._pause * 2 ** min(self._failures, 6), _retry_after(error))
        self._failures += 1
        self._due_at = time.time() + min(pause, LONGEST_PAUSE)
        hint = self._hints.get(kind)
        logger.log(
            logging.WARNING if hint is None else logging.ERROR,
            self._failure if hint is None else f"{self._failure}: {hint}",
            extra={**self._labels, "status": status, "error": type(error).__name__},
        )


def _retry_after(error: Exception) -> float:
    """Return the delay-seconds of a `Retry-After` header (RFC 9110 §10.2.3), or 0."""
    response = getattr(error, "response", None)
    header = "" if response is None else response.headers.get("Retry-After", "")
    return float(header) if header.isdecimal() else 0.0


def _default_credential(settings: Settings) -> CredentialFactory:
    def credential() -> "AsyncTokenCredential":
        from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - costs 170 ms

        return DefaultAzureCredential(managed_identity_client_id=settings.azure_client_id)

    return credential


class NoUsableVersionError(Exception):
    """The vault has no version of a secret that is enabled, valid now and long enough."""


class VaultSecret(_Kept[tuple[str, ...]]):
    """The current and the previous value of one Key Vault secret, so that it can be rotated.

    `client_options` go to the SDK's `SecretClient`, a `transport` for example.
    """

    _service = "key_vault"
    _failure = "A secret cannot be read from Key Vault"
    _hints: ClassVar[Mapping[str, str]] = {
        "403": "this identity needs the role Key Vault Secrets User and a network path that is let in",
        "404": "there is no secret of this name",
        "NoUsableVersionError": "no version is enabled, valid now and long enough",
    }

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        credential: CredentialFactory | None = None,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
        **client_options: Any,
    ) -> None:
        if settings.key_vault_url is None:
            raise ValueError("KEY_VAULT_URL is not set")
        super().__init__({"vault": urlsplit(settings.key_vault_url).netloc, "secret": name}, timeout, pause)
        self._url = settings.key_vault_url
        self._name = name
        self._interval = settings.key_vault_refresh
        self._credential = credential or _default_credential(settings)
        self._client_options = client_options

    async def values(self) -> tuple[str, ...]:
        """Return one or two values, newest first; the same tuple until one of them changes.

        A version that is disabled or has expired is left out from the next refresh on.

        Raises:
            Unavailable: the vault has not given one yet, or has no usable version any more.
        """
        return await self._get()

    @override
    async def _read(self) -> tuple[tuple[str, ...], float, float]:
        from azure.keyvault.secrets.aio import SecretClient  # noqa: PLC0415 - costs 70 ms

        values: list[str] = []
        async with (
            self._credential() as credential,
            # No retries: they would hold up the callers and lose a `Retry-After` to the timeout.
            SecretClient(self._url, credential, retry_total=0, **self._client_options) as client,
        ):
            listed = client.list_properties_of_secret_versions(self._name)
            usable = [version async for version in listed if _is_usable(version)]
            for version in sorted(usable, key=_created, reverse=True):
                value = (await client.get_secret(self._name, version.version)).value or ""
                if len(value.encode()) >= MIN_KEY_BYTES:
                    values.append(value)
                else:
                    logger.error(
                        "A secret in Key Vault is too short and is ignored",
                        extra={**self._labels, "version": version.version},
                    )
                if len(values) == 2:  # noqa: PLR2004 - current and previous
                    break
        if not values:
            self._value = None  # the vault has spoken: what it has withdrawn is not accepted any more
            raise NoUsableVersionError
        return tuple(values), time.time() + self._interval, math.inf


def _is_usable(version: "SecretProperties") -> bool:
    now = datetime.now(UTC)
    return (
        bool(version.enabled)
        and (version.not_before is None or version.not_before <= now)
        and (version.expires_on is None or now < version.expires_on)
    )


def _created(version: "SecretProperties") -> datetime:
    return version.created_on or datetime.min.replace(tzinfo=UTC)


class EntraToken(_Kept[str]):
    """A Microsoft Entra access token for the databases, as asyncpg's `password=` takes it."""

    _service = "entra"
    _failure = "A token cannot be obtained from Microsoft Entra"

    def __init__(
        self,
        settings: Settings,
        *,
        credential: CredentialFactory | None = None,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
    ) -> None:
        super().__init__({"scope": DATABASE_SCOPE}, timeout, pause)
        self._credential = credential or _default_credential(settings)

    async def __call__(self, *, wait: bool = True) -> str:
        """Return a token that is valid now.

        Raises:
            Unavailable: there is none, and none came in time; without `wait`, at once.
        """
        return await self._get(wait=wait)

    @override
    async def _read(self) -> tuple[str, float, float]:
        async with self._credential() as credential:
            token = await credential.get_token(DATABASE_SCOPE)
        if token.expires_on <= time.time():
            raise ValueError("The token has expired already")
        return token.token, token.expires_on - EARLY, token.expires_on


class _MongoCallback(OIDCCallback):
    """Gives PyMongo the token; PyMongo asks in a thread of its own when it opens a connection."""

    def __init__(self, token: EntraToken, loop: asyncio.AbstractEventLoop) -> None:
        self._token = token
        self._loop = loop

    @override
    def fetch(self, context: OIDCCallbackContext) -> OIDCCallbackResult:
        future = asyncio.run_coroutine_threadsafe(self._token(), self._loop)
        return OIDCCallbackResult(access_token=future.result(max(1, context.timeout_seconds)))


def mongo_options(token: EntraToken) -> dict[str, Any]:
    """Return client options that sign in to Azure DocumentDB by MONGODB-OIDC; needs a running loop.

    PyMongo's own `ENVIRONMENT:azure` asks a virtual machine's metadata address, which Azure
    Functions does not have.
    """
    return {
        "authMechanism": "MONGODB-OIDC",
        "authMechanismProperties": {"OIDC_CALLBACK": _MongoCallback(token, asyncio.get_running_loop())},
    }
