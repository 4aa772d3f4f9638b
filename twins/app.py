"""`create_app`, which only connects the parts."""

import asyncio
from functools import partial

from shared import logging, telemetry
from shared.auth import Authenticator
from shared.azure.identity import EntraToken, VaultSecret, mongo_options
from shared.digests import Digests
from shared.http.application import Application
from shared.http.second_process import SecondProcess
from shared.settings import ConfigurationError
from shared.signing import Signer, SigningKeyError, parse_keys
from shared.stores.mongo import Mongo
from shared.stores.postgres import Postgres
from shared.tokens import Keys, StaticKeys
from twins import VERSION, maintenance
from twins.bounds import bounds
from twins.context import Context
from twins.decision import service as decision
from twins.resources import RESOURCES, holders
from twins.scopes import READ, SCOPES
from twins.settings import Settings, load

_DESCRIPTION = """\
A twin speaks for a person who agreed to it, for the purposes that the person agreed to. Ask the gate before each use:
it answers as of that moment, and a no is in effect before it is answered.

Errors are problem documents (RFC 9457), each type with a page of its own.
"""


def create_app(settings: Settings | None = None) -> Application:
    """Return the FastAPI application, without opening a store; raises `ConfigurationError`."""
    settings = settings or load()
    logging.configure(settings.log_level, "twins")
    keys, receipt_keys = _keys(settings)
    context = _context(settings, keys, receipt_keys)

    async def start() -> None:
        # What fails here fails again where it is needed, and is a 503 there until it is up.
        await asyncio.gather(
            decision.prepare(context),
            context.mongo.ping(),
            receipt_keys.values(),
            *(() if keys is None else (keys.values(),)),
            return_exceptions=True,
        )

    async def close() -> None:
        if context.second_process is not None:
            await context.second_process.close()
        await context.postgres.close()
        await context.mongo.close()

    app = Application(
        title="Twins",
        summary="System of record for AI persona twins, with consent that is enforced.",
        description=_DESCRIPTION,
        version=VERSION,
        contact={"name": "The operator of this service"},
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=[{"name": resource.tag, "description": resource.description} for resource in RESOURCES],
        tracer=telemetry.configure(settings, "twins"),
        # FastAPI matches included routes twice: once for their router, and once for themselves.
        routes=[route for resource in RESOURCES for route in resource.router.routes],
        scopes=SCOPES,
        read_scope=READ,
        drain=partial(maintenance.run, context),
        close=close,
        start=start,
    )
    app.state.context = context
    return app


def _keys(settings: Settings) -> tuple[Keys | None, Keys]:
    """Return the keys of HS256, if there are any, and those that sign receipts."""
    keys: Keys | None = None
    receipt_keys: Keys
    if settings.key_vault_url is None:
        receipt_keys = StaticKeys(_receipt_keys(settings))
    else:
        receipt_keys = VaultSecret(settings, settings.key_vault_receipt_secret)
    if settings.key_vault_url is not None and settings.key_vault_jwt_secret is not None:
        keys = VaultSecret(settings, settings.key_vault_jwt_secret, max_age=settings.key_vault_max_age)
    elif settings.jwt_secrets:
        keys = StaticKeys([key.get_secret_value() for key in settings.jwt_secrets])
    return keys, receipt_keys


def _context(settings: Settings, keys: Keys | None, receipt_keys: Keys) -> Context:
    token = EntraToken(settings)
    digests = Digests(settings.digest_key.get_secret_value())
    return Context(
        settings=settings,
        postgres=Postgres(settings, token if settings.postgres_auth == "entra" else None),
        mongo=Mongo(settings, partial(mongo_options, token) if settings.mongodb_auth == "oidc" else dict),
        authenticator=Authenticator(settings, keys, digests, account="owner", read_scope=READ),
        digests=digests,
        signer=Signer(receipt_keys),
        bounds=bounds(settings),
        second_process=SecondProcess("twins.app:create_app", settings) if settings.second_process else None,
        holders=holders(),
    )


def _receipt_keys(settings: Settings) -> list[str]:
    texts = [settings.receipt_keys.get_secret_value()] if settings.receipt_keys else []
    try:
        parse_keys(tuple(texts))
    except SigningKeyError as error:
        raise ConfigurationError(f"Unusable configuration. RECEIPT_KEYS: {error}") from None
    return texts
