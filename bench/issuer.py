"""An identity provider in so far as the bench needs one: a published key, and tokens that it signs."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, override

from jose import jwt
from joserfc.jwk import RSAKey

from devstack.process import LOCALHOST

AUDIENCE = "twins"


@dataclass(frozen=True)
class Issuer:
    url: str
    key: dict[str, Any]

    @property
    def table(self) -> str:
        """`AUTH_ISSUERS` for it."""
        row = {"issuer": self.url, "audience": [AUDIENCE], "subject_claim": "sub", "algorithms": ["RS256"]}
        return json.dumps([row | {"jwks_uri": f"{self.url}/keys"}])

    def token(self, sub: str, scope: str) -> str:
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": sub, "scope": scope, "exp": int(time.time()) + 86_400}
        return str(jwt.encode(claims, self.key, "RS256", headers={"kid": self.key["kid"]}))


@contextmanager
def published() -> Iterator[Issuer]:
    """Publish a new RSA key."""
    key = RSAKey.generate_key(2048, {"kid": "bench", "use": "sig", "alg": "RS256"})
    content = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer((LOCALHOST, 0), Keys) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Issuer(f"http://{LOCALHOST}:{server.server_port}", dict(key.as_dict(private=True)))
        server.shutdown()
