"""A visit notices each kind of fault; a machine without Chromium gets one, or the command to type."""

import base64
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import override

import pytest
from playwright.async_api import Browser, Error, Request

from devstack.local import ROOT
from devstack.process import LOCALHOST
from tests.support.browser import SIZES, Size, chromium, on_path, visiting

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
POLICY = "script-src 'self'; img-src 'self'; connect-src 'self' http://other.test:*"
FILES = {
    "/": (
        "text/html",
        b"<!doctype html><meta name=viewport content='width=device-width'><link rel=icon href=/icon.png>A page",
    ),
    "/icon.png": ("image/png", base64.b64decode(PIXEL)),
    "/quiet.js": ("text/javascript", b"fetch('/icon.png').then(() => postMessage(0))"),
    "/evaluates.js": ("text/javascript", b"try { eval('1') } catch {}"),
    "/logs.js": ("text/javascript", b"console.error('seen')"),
    "/throws.js": ("text/javascript", b"setTimeout(() => { throw new Error('seen') })"),
    "/asks.js": ("text/javascript", b"fetch(`http://other.test:${location.port}/`, {mode: 'no-cors'})"),
    "/violates.js": ("text/javascript", b"fetch('http://third.test/', {mode: 'no-cors'}).catch(() => postMessage(0))"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        media_type, body = FILES.get(self.path, ("", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer((LOCALHOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://{LOCALHOST}:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def visit(browser: Browser, url: str, size: Size, script: str, event: str | None = None) -> None:
    """Run a script on the page, and wait for an event if one is named."""

    def is_it(seen: object) -> bool:
        return not isinstance(seen, Request) or "other.test" in seen.url

    async with (
        visiting(browser, url, size) as page,
        page.context.expect_event(event, is_it) if event else nullcontext(),
    ):
        await page.evaluate(script)


@SIZES
async def test_a_page_without_fault_is_sound(browser: Browser, url: str, size: Size) -> None:
    await visit(browser, url, size, "new Promise(done => new Worker('/quiet.js').onmessage = () => done())")


@SIZES
@pytest.mark.parametrize(
    ("event", "script", "complaint"),
    [
        ("console", "console.error('seen')", "seen"),
        ("console", "console.assert(false, 'seen')", "seen"),
        ("weberror", "setTimeout(() => { throw new Error('seen') })", "seen"),
        ("weberror", "Promise.reject(new Error('seen')); 0", "seen"),
        ("console", "new Image().src = '/missing.png'", "404"),
        ("console", "new Image().src = 'http://other.test/x.png'", "Content Security Policy"),
        (None, "import('/evaluates.js')", "ContentSecurityPolicyIssue"),
        ("console", "new Worker('/logs.js')", "seen"),
        ("weberror", "new Worker('/throws.js')", "seen"),
        (None, "new Promise(done => new Worker('/violates.js').onmessage = () => done())", "Content Security Policy"),
        ("request", "fetch(`http://other.test:${location.port}/`, {mode: 'no-cors'}); 0", "other.test"),
        ("request", "new Worker('/asks.js')", "other.test"),
        ("console", "navigator.serviceWorker.register('/logs.js'); 0", "seen"),
        ("request", "navigator.serviceWorker.register('/asks.js'); 0", "other.test"),
        (None, "document.body.style.width = '2000px'", "too wide"),
        (None, "document.querySelector('link').remove()", "null"),
        (None, "document.querySelector('link').href = '/'", "cannot be decoded"),
    ],
)
async def test_a_fault_of_a_page_or_of_its_workers_is_noticed(
    browser: Browser, url: str, size: Size, event: str | None, script: str, complaint: str
) -> None:
    with pytest.raises((AssertionError, Error), match=complaint):
        await visit(browser, url, size, script, event)


def put_program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def get(path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Get a Chromium where nothing but `path` has programs, and no other host can be reached."""
    environment = {
        "PATH": str(path),
        "PLAYWRIGHT_BROWSERS_PATH": str(path),
        "PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9",
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.support.browser"],
        cwd=ROOT,
        env=os.environ | environment | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_where_no_browser_starts_the_failure_says_what_to_type(tmp_path: Path) -> None:
    put_program(tmp_path / "chromium", "exit 1")
    put_program(tmp_path / "apt-get", "echo no such package >&2; exit 1")
    done = get(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "playwright install --only-shell chromium" in done.stderr
    assert f"{tmp_path}/chromium: " in done.stderr
    assert "sudo apt-get install chromium" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_so_it_does_where_playwrights_own_node_does_not_start(tmp_path: Path) -> None:
    put_program(tmp_path / "node", "echo no libatomic.so.1 >&2; exit 127")
    put_program(tmp_path / "apt-get", "exit 1")
    done = get(tmp_path, PLAYWRIGHT_NODEJS_PATH=f"{tmp_path}/node")
    assert done.returncode == 1
    assert "no libatomic.so.1" in done.stderr
    assert "sudo apt-get install chromium" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not on_path(), reason="root installs packages, and this one is that of PATH")
def test_a_missing_one_is_installed_once_and_said_in_a_line(tmp_path: Path) -> None:
    put_program(tmp_path / "package", f'PATH={shlex.quote(os.environ["PATH"])} exec {on_path()[0]} "$@"')
    put_program(tmp_path / "apt-get", f"[ $1 = update ] || /bin/ln -s package {tmp_path}/chromium")
    done = get(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert "apt-get install" in line
    done = get(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
