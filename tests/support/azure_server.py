"""Local servers that speak as Azure does: Key Vault, the identity endpoint, DocumentDB's sign-in."""

import asyncio
import ssl
import struct
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, override
from uuid import uuid4

import aiohttp
import bson
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VAULT_HOST = "twins.vault.azure.net"
VAULT_TOKEN = "a-token-for-the-vault"
ERROR_TEXT = "Caller is not authorized to perform action on resource"
PAGE = 2


def certificate(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's TLS context for `host` and that of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    issued = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_pem = issued.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(certificate_pem + key_pem)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=certificate_pem.decode())


@dataclass
class Fault:
    """How a server misbehaves: it waits, then answers with `status` unless that is 0."""

    status: int = 0
    delay: float = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def apply(self) -> web.Response | None:
        await asyncio.sleep(self.delay)
        if not self.status:
            return None
        body = {"error": {"code": "Fault", "message": ERROR_TEXT}}
        return web.json_response(body, status=self.status, headers=self.headers)


class _Server(ABC):
    """An HTTP server on a random port of the loopback interface that can be stopped and started."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.fault: Fault | None = None
        self.port = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def routes(self) -> list[web.RouteDef]: ...

    async def start(self) -> None:
        app = web.Application(middlewares=[self._gate])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port: from now on connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @web.middleware
    async def _gate(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        refusal = self.admit(request)
        if refusal is None and self.fault is not None:
            refusal = await self.fault.apply()
        return refusal or await handler(request)

    @abstractmethod
    def admit(self, request: web.Request) -> web.Response | None:
        """Note a request; return the answer to one that does not show who it is from."""


@dataclass
class Version:
    """One version of a secret, with the attributes that Key Vault keeps."""

    value: str
    created: int
    enabled: bool = True
    exp: int | None = None
    nbf: int | None = None
    id: str = field(default_factory=lambda: uuid4().hex)

    def attributes(self) -> dict[str, Any]:
        times = {"created": self.created, "updated": self.created, "exp": self.exp, "nbf": self.nbf}
        return {"enabled": self.enabled, **{name: at for name, at in times.items() if at is not None}}


class KeyVault(_Server):
    """The secrets of one vault, under its real name, by the Key Vault REST protocol.

    A request without the right token gets the 401 challenge; versions come unordered in small
    pages whose `nextLink` carries the port, as Key Vault's does.
    """

    def __init__(self) -> None:
        server, self.trust = certificate(VAULT_HOST)
        super().__init__(server)
        self.resource = "https://vault.azure.net"
        self.tokens = {VAULT_TOKEN}
        self.secrets: dict[str, list[Version]] = {}
        self.requests: Counter[str] = Counter()

    def add(self, name: str, value: str, **attributes: Any) -> Version:
        """Add a version, newer than all before it."""
        versions = self.secrets.setdefault(name, [])
        version = Version(value, int(time.time()) - 1000 + len(versions), **attributes)
        versions.append(version)
        return version

    @override
    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/secrets/{name}/versions", self._list),
            web.get("/secrets/{name}/{version}", self._get),
        ]

    @override
    def admit(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens:
            self.requests["listed" if request.path.endswith("/versions") else "read"] += 1
            return None
        self.requests["challenged"] += 1
        authority = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000001"
        challenge = f'Bearer authorization="{authority}", resource="{self.resource}"'
        return web.json_response({"error": {}}, status=401, headers={"WWW-Authenticate": challenge})

    async def _list(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        start = int(request.query.get("$skiptoken", "0"))
        versions = self.secrets.get(name, [])
        body: dict[str, Any] = {
            "value": [
                {
                    "id": f"https://{VAULT_HOST}/secrets/{name}/{version.id}",
                    "attributes": version.attributes(),
                }
                for version in versions[start : start + PAGE]
            ],
            "nextLink": None,
        }
        if start + PAGE < len(versions):
            query = f"api-version={request.query['api-version']}&$skiptoken={start + PAGE}"
            body["nextLink"] = f"https://{VAULT_HOST}:443/secrets/{name}/versions?{query}"
        return web.json_response(body)

    async def _get(self, request: web.Request) -> web.Response:
        name, wanted = request.match_info["name"], request.match_info["version"]
        version = next(version for version in self.secrets[name] if version.id == wanted)
        return web.json_response(
            {
                "value": version.value,
                "id": f"https://{VAULT_HOST}/secrets/{name}/{version.id}",
                "attributes": version.attributes(),
            }
        )

    def transport(self, trust: ssl.SSLContext | bool | None = None) -> AioHttpTransport:
        """Return the SDK's own transport, its names resolved to this server; close its session."""
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self), use_dns_cache=False, ssl=self.trust if trust is None else trust
        )
        return AioHttpTransport(session=aiohttp.ClientSession(connector=connector), session_owner=False)


class _Resolver(AbstractResolver):
    """Sends the vault's name and its port 443 to where the server listens now."""

    def __init__(self, vault: KeyVault) -> None:
        self._vault = vault

    @override
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        assert (host, port) == (VAULT_HOST, 443)
        address = {"hostname": host, "host": "127.0.0.1", "port": self._vault.port, "family": 2}
        return [ResolveResult(**address, proto=0, flags=0)]  # type: ignore[typeddict-item]

    @override
    async def close(self) -> None:
        pass


class IdentityEndpoint(_Server):
    """The managed identity endpoint of App Service and Functions (api-version 2019-08-01)."""

    SECRET = "the-identity-header"

    def __init__(self) -> None:
        super().__init__()
        self.lifetime = 3600.0
        self.tokens: list[str] = []
        self.queries: list[dict[str, str]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What the platform sets for the process."""
        return {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.port}/msi/token",
            "IDENTITY_HEADER": self.SECRET,
        }

    @override
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/msi/token", self._token)]

    @override
    def admit(self, request: web.Request) -> web.Response | None:
        self.queries.append(dict(request.query))
        if request.headers.get("X-IDENTITY-HEADER") == self.SECRET:
            return None
        return web.json_response({"statusCode": 401, "message": "no header"}, status=401)

    async def _token(self, request: web.Request) -> web.Response:
        self.tokens.append(f"token-{len(self.tokens) + 1}")
        return web.json_response(
            {
                "access_token": self.tokens[-1],
                "expires_on": str(int(time.time() + self.lifetime)),
                "resource": request.query["resource"],
                "token_type": "Bearer",
            }
        )


class AzureMonitor(_Server):
    """The ingestion endpoint of Application Insights and that of live metrics, under the name `localhost`.

    It keeps the type and data of each row in `rows`, counts the requests of live metrics in `live`, and answers
    everything with `status`. It wants no token.
    """

    def __init__(self, status: int) -> None:
        server, trust = certificate("localhost")
        super().__init__(server)
        (der,) = trust.get_ca_certs(binary_form=True)
        self.certificate_pem = ssl.DER_cert_to_PEM_cert(der)
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.live = 0
        self._status = status

    @property
    def connection_string(self) -> str:
        """Of a resource of its own: the exporter keeps by its key what it could not send, and sends it later."""
        address = f"https://localhost:{self.port}"
        return f"InstrumentationKey={uuid4()};IngestionEndpoint={address};LiveEndpoint={address}"

    @override
    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2.1/track", self._track),
            web.post("/QuickPulseService.svc/{kind}", self._live),
        ]

    @override
    def admit(self, request: web.Request) -> web.Response | None:
        return None

    async def _track(self, request: web.Request) -> web.Response:
        items = await request.json()
        self.rows += [(item["data"]["baseType"], item["data"]["baseData"]) for item in items]
        body = {"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}
        # The exporter asks again up to ten times, each time after twice as long, unless the answer names a time.
        return web.json_response(body, status=self._status, headers={"retry-after-ms": "1"})

    async def _live(self, _: web.Request) -> web.Response:
        self.live += 1
        return web.json_response({}, status=self._status, headers={"x-ms-qps-subscribed": "true"})


class Credential:
    """A credential whose tokens live as long, and come as late or not at all, as a test says.

    It is its own factory: every read gets this object and closes it.
    """

    def __init__(self, token: str = "token", lifetime: float = 3600) -> None:
        self.token = token
        self.lifetime = lifetime
        self.delay = 0.0
        self.error: Exception | None = None
        self.scopes: list[str] = []

    def __call__(self) -> Self:
        return self

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.scopes.extend(scopes)
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        # Real ones are whole seconds; a test would have to wait for those.
        return AccessToken(self.token, time.time() + self.lifetime)  # type: ignore[arg-type]

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        pass


class DocumentDb:
    """As much of the MongoDB wire protocol (OP_MSG) as a client needs to sign in by OIDC and ping."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.presented: list[str] = []
        self._server: asyncio.Server | None = None
        self._id = bson.ObjectId()

    @property
    def uri(self) -> str:
        """Load-balanced, so that there is no monitor and each message is OP_MSG."""
        assert self._server is not None
        return f"mongodb://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/?loadBalanced=true"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        signed_in = False
        try:
            while True:
                length, request_id, _, _ = struct.unpack("<iiii", await reader.readexactly(16))
                command = bson.decode((await reader.readexactly(length - 16))[5:])
                if "hello" in command:
                    answer = {"ok": 1, "isWritablePrimary": True, "maxWireVersion": 21, "serviceId": self._id}
                elif "saslStart" in command:
                    signed_in = self._sign_in(bson.decode(command["payload"])["jwt"])
                    answer = {"ok": 1, "conversationId": 1, "done": True, "payload": b""}
                elif "ping" in command and signed_in:
                    answer = {"ok": 1}
                if not signed_in and "hello" not in command:
                    answer = {"ok": 0, "code": 18, "errmsg": "Authentication failed."}
                body = b"\0\0\0\0\0" + bson.encode(answer)
                writer.write(struct.pack("<iiii", 16 + len(body), 0, request_id, 2013) + body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _sign_in(self, jwt: str) -> bool:
        self.presented.append(jwt)
        return jwt in self.accepted
