"""An identity provider's published files, with whatever keys a test wants, and the tokens that go with them."""

import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from typing import Any, override

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jose import jwk

from tests.support import log_search
from tests.support.azure_server import Fault, _Server

AUDIENCE = "https://twins.example"

__all__ = ["AUDIENCE", "Fault", "IssuerServer", "Signing", "encoded", "hs256"]


def encoded(content: Any) -> str:
    """Return base64url of bytes, or of JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(header: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    """Sign by HMAC, with anything for a key."""
    signed = f"{encoded(header | {'alg': 'HS256'})}.{encoded(claims)}"
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), hashlib.sha256))}"


class Signing:
    """A private key, its public JWK, and tokens that it signs."""

    def __init__(self, kid: str, kind: str = "RS256", bits: int = 2048, curve: ec.EllipticCurve | None = None) -> None:
        self.kid = kid
        self.kind = kind
        self.key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            ec.generate_private_key(curve or ec.SECP256R1())
            if kind.startswith("ES")
            else rsa.generate_private_key(public_exponent=65537, key_size=bits)
        )

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def der(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key; None drops a member."""
        found = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in jwk.construct(self.pem.decode(), self.kind).to_dict().items()
        }
        members = found | {"kid": self.kid, "use": "sig", "alg": self.kind} | changes
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None, hashed: Any = hashes.SHA256) -> str:
        """Sign claims; None drops a member of the header."""
        given = {"alg": self.kind, "typ": "JWT", "kid": self.kid} | (header or {})
        signed = f"{encoded({k: v for k, v in given.items() if v is not None})}.{encoded(claims)}"
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashed())
        else:
            r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashed())))
            size = (self.key.key_size + 7) // 8
            signature = r.to_bytes(size) + s.to_bytes(size)
        return f"{signed}.{encoded(signature)}"


class IssuerServer(_Server):
    """Publishes metadata and a key set, counts who asks for them, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.answers: dict[str, web.Response] = {}
        """Answers in place of the usual ones, by path."""
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def entry(self, **changes: Any) -> dict[str, Any]:
        """Return this issuer's row of `AUTH_ISSUERS`; None drops a member."""
        row = {
            "issuer": self.url,
            "audience": [AUDIENCE],
            "subject_claim": "sub",
            "algorithms": ["RS256", "ES256"],
            "discovery": f"{self.url}/metadata",
        } | changes
        return {name: value for name, value in row.items() if value is not None}

    def claims(self, sub: Any = "alice", **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token; None drops one."""
        log_search.hide("account", sub)
        found = {"iss": self.url, "aud": AUDIENCE, "sub": sub, "exp": int(time.time()) + 3600} | changes
        return {name: value for name, value in found.items() if value is not None}

    @override
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metadata", self._metadata), web.get("/keys", self._keys), web.get("/elsewhere", self._keys)]

    @override
    def admit(self, request: web.Request) -> web.Response | None:
        self.asked[request.path] += 1
        assert request.headers["Accept-Encoding"] == "identity"
        return None

    async def _metadata(self, request: web.Request) -> web.Response:
        usual = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return self._answer(request) or web.json_response(usual | self.metadata)

    async def _keys(self, request: web.Request) -> web.Response:
        return self._answer(request) or web.json_response({"keys": self.keys})

    def _answer(self, request: web.Request) -> web.Response | None:
        found = self.answers.get(request.path)
        if found is None:
            return None
        return web.Response(body=found.body, status=found.status, headers=found.headers)
