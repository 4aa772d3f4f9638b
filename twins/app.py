"""`create_app`: wires the parts together, and nothing else."""

from functools import partial

from fastapi import FastAPI

from shared import logs, telemetry
from shared.asgi import Shell
from shared.auth import Authenticator, Keys, StaticKeys
from shared.azure import EntraToken, VaultSecret, mongo_options
from shared.context import Context
from shared.digests import Digests
from shared.docs import add_docs
from shared.errors import add_handlers
from shared.mongo import Mongo
from shared.postgres import Postgres
from shared.settings import ConfigurationError, Settings, load
from shared.signing import Signer, SigningKeyError, parse_keys
from twins import maintenance
from twins.consent import routes as consent
from twins.erasure import routes as erasure
from twins.health import routes as health
from twins.persona import routes as persona
from twins.twin import routes as twin

VERSION = "0.1.0"

_TAGS = {
    "twins": "AI personas, each of one owner.",
    "decisions": "The gate: may this twin be used for this purpose, now, and why.",
    "consents": "What people have agreed to, bound to the exact text they were shown.",
    "ledger": "Everything that happened to a twin's consent, in a chain that shows tampering.",
    "persona": "What a twin is like: nested, versioned, compiled to a prompt.",
    "erasure": "What is erased, and the proof.",
    "account": "Everything that is stored of you.",
    "keys": "What signatures are verified with.",
    "health": "For load balancers and web tests.",
}


def create_app(settings: Settings | None = None) -> Shell:
    """Return the ASGI application; opens nothing.

    Raises:
        ConfigurationError: the environment lacks a setting or has one that cannot be used.
    """
    settings = settings or load()
    logs.configure(settings.log_level)
    digests = Digests(settings.digest_key.get_secret_value())
    keys: Keys
    receipt_keys: Keys
    if settings.key_vault_url is None:
        keys = StaticKeys([key.get_secret_value() for key in settings.jwt_secrets])
        receipt_keys = StaticKeys(_receipt_keys(settings))
    else:
        keys = VaultSecret(settings, settings.key_vault_jwt_secret)
        receipt_keys = VaultSecret(settings, settings.key_vault_receipt_secret)
    token = EntraToken(settings)
    context = Context(
        settings=settings,
        postgres=Postgres(settings, token if settings.postgres_auth == "entra" else None),
        mongo=Mongo(settings, partial(mongo_options, token) if settings.mongodb_auth == "oidc" else dict),
        authenticator=Authenticator(settings, keys, digests),
        digests=digests,
        signer=Signer(receipt_keys),
    )
    app = FastAPI(
        title="Twins",
        summary="System of record for AI persona twins, with consent that is enforced.",
        version=VERSION,
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=[{"name": name, "description": description} for name, description in _TAGS.items()],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=telemetry.configure(settings),
    )
    app.state.context = context
    add_handlers(app)
    # In the order of how often they are asked for, since a path is matched against one after another.
    for router in (
        consent.router,
        twin.router,
        persona.router,
        erasure.router,
        consent.keys_router,
        health.router,
    ):
        # Routes that are included are matched twice, once for their router and once for themselves.
        app.router.routes.extend(router.routes)
    add_docs(app)

    async def close() -> None:
        await context.postgres.close()
        await context.mongo.close()

    return Shell(app, close, partial(maintenance.run, context))


def _receipt_keys(settings: Settings) -> list[str]:
    texts = [settings.receipt_keys.get_secret_value()] if settings.receipt_keys else []
    try:
        parse_keys(tuple(texts))
    except SigningKeyError as error:
        raise ConfigurationError(f"Unusable configuration. RECEIPT_KEYS: {error}") from None
    return texts
