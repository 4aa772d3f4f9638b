"""Secrets from Key Vault and tokens from Microsoft Entra, kept fresh.

The import of the SDK takes a quarter of a second, so the first read imports it, not the cold start; and
in a thread, so that requests go on.
A credential and a client live for one read: reads are minutes apart, nothing stays open (Azure
Functions ends a worker without an ASGI shutdown), and nothing binds to an event loop too early.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, override
from urllib.parse import urlsplit

from pymongo.auth_oidc import OIDCCallback, OIDCCallbackContext, OIDCCallbackResult

from shared.kept import Kept, Reading
from shared.settings import MIN_KEY_BYTES, Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline.transport import AsyncHttpTransport
    from azure.keyvault.secrets import SecretProperties

logger = logging.getLogger(__name__)

type CredentialFactory = Callable[[], AsyncTokenCredential]

DATABASE_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
"""The scope of tokens for Azure Database for PostgreSQL and Azure DocumentDB."""

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
EARLY = 300.0
"""Seconds between the replacement of a token and its end; azure-identity uses the same five minutes."""


class NoUsableVersionError(Exception):
    """The vault has no version of a secret that is enabled, valid now and long enough."""


async def _import(*modules: str) -> None:
    for name in modules:
        await asyncio.to_thread(import_module, name)


def _default_credential(settings: Settings) -> "AsyncTokenCredential":
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - imported by `_read`

    return DefaultAzureCredential(managed_identity_client_id=settings.azure_client_id)


class VaultSecret(Kept[tuple[str, ...]]):
    """The current and the previous value of one Key Vault secret, for its rotation."""

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
        max_age: float = math.inf,
        credential: CredentialFactory | None = None,
        transport: "AsyncHttpTransport[Any, Any] | None" = None,
        **options: Any,
    ) -> None:
        """`max_age` is in seconds, `transport` for the SDK's `SecretClient`, `options` are those of `Kept`."""
        super().__init__(**options)
        self._credential = credential or partial(_default_credential, settings)
        if settings.key_vault_url is None:
            raise ValueError("KEY_VAULT_URL is not set")
        self._labels = {"vault": urlsplit(settings.key_vault_url).netloc, "secret": name}
        self._url = settings.key_vault_url
        self._name = name
        self._interval = settings.key_vault_refresh
        self._max_age = max_age
        self._transport = transport

    async def values(self) -> tuple[str, ...]:
        """Return one or two values, newest first; the same tuple until one of them changes.

        A refresh drops a version that is disabled or has expired. Values older than two refreshes are
        read again first, if the vault answers. Raises `Unavailable` before the first successful read,
        while the vault has no usable version, and where the last read is `max_age` ago.
        """
        return await self._get()

    @override
    async def _read(self) -> Reading[tuple[str, ...]]:
        await _import("azure.identity.aio", "azure.keyvault.secrets.aio")
        from azure.keyvault.secrets.aio import SecretClient  # noqa: PLC0415 - see above

        # From here on a version may be disabled without being noticed.
        began, values = time.time(), list[str]()
        async with (
            self._credential() as credential,
            # No retries: they would delay the callers and lose a `Retry-After` to the timeout.
            SecretClient(self._url, credential, retry_total=0, transport=self._transport) as client,
        ):
            listed = client.list_properties_of_secret_versions(self._name)
            usable = [version async for version in listed if _is_usable(version)]
            for version in sorted(usable, key=lambda version: version.created_on or _FIRST, reverse=True):
                value = (await client.get_secret(self._name, version.version)).value or ""
                if len(value.encode()) >= MIN_KEY_BYTES:
                    values.append(value)
                else:
                    extra = {**self._labels, "version": version.version}
                    logger.error("A secret in Key Vault is too short and is ignored", extra=extra)
                if len(values) == 2:  # noqa: PLR2004 - current and previous
                    break
        if not values:
            self._value = None  # Key Vault answered: a revoked secret must stop working
            raise NoUsableVersionError
        return Reading(
            tuple(values), began + self._interval, began + 2 * self._interval, expires_at=began + self._max_age
        )


def _is_usable(version: "SecretProperties") -> bool:
    start, end = version.not_before or _FIRST, version.expires_on or _LAST
    return bool(version.enabled) and start <= datetime.now(UTC) < end


class EntraToken(Kept[str]):
    """A Microsoft Entra access token for the databases."""

    _service = "entra"
    _failure = "A token cannot be obtained from Microsoft Entra"
    _labels: Mapping[str, str] = {"scope": DATABASE_SCOPE}

    def __init__(self, settings: Settings, *, credential: CredentialFactory | None = None, **options: Any) -> None:
        """`options` are those of `Kept`."""
        super().__init__(**options)
        self._credential = credential or partial(_default_credential, settings)

    async def __call__(self, *, wait: bool = True) -> str:
        """Return a token that is valid now; raises `Unavailable` where none comes in time, without `wait` at once."""
        return await self._get(wait=wait)

    @override
    async def _read(self) -> Reading[str]:
        await _import("azure.identity.aio")
        async with self._credential() as credential:
            token = await credential.get_token(DATABASE_SCOPE)
        if token.expires_on <= time.time():
            raise ValueError("The token has expired already")
        return Reading(token.token, token.expires_on - EARLY, expires_at=token.expires_on)


class _MongoCallback(OIDCCallback):
    """Returns the token to PyMongo, which calls this in a thread of its own for each new connection."""

    def __init__(self, token: EntraToken, loop: asyncio.AbstractEventLoop) -> None:
        self._token = token
        self._loop = loop

    @override
    def fetch(self, context: OIDCCallbackContext) -> OIDCCallbackResult:
        future = asyncio.run_coroutine_threadsafe(self._token(), self._loop)
        return OIDCCallbackResult(access_token=future.result(max(1, context.timeout_seconds)))


def mongo_options(token: EntraToken) -> dict[str, Any]:
    """Return client options that sign in to Azure DocumentDB by MONGODB-OIDC; needs a running loop.

    PyMongo's own `ENVIRONMENT:azure` calls the metadata address of virtual machines, which Azure
    Functions does not have.
    """
    return {
        "authMechanism": "MONGODB-OIDC",
        "authMechanismProperties": {"OIDC_CALLBACK": _MongoCallback(token, asyncio.get_running_loop())},
    }
