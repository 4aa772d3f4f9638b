"""Headless Chromium for tests, by Playwright.

`chromium()` starts one browser; `visiting()` opens a page that shares nothing with other pages, and at
its end holds the page to what every page has to keep. Names under `.test` lead to this machine and
every other name leads nowhere, so a page sees a host that is not localhost and can still reach nothing
else. `python -m tests.support.browser` gets a Chromium where none starts.
"""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Error, Page, async_playwright, expect

PATIENCE = 15_000
"""Milliseconds until something that does not happen on a page is a failure."""
expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True)
class Size:
    """A window, in CSS pixels."""

    width: int
    height: int
    mobile: bool


DESKTOP = Size(1280, 800, mobile=False)
PHONE = Size(390, 844, mobile=True)
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])

_FLAGS = ("--no-proxy-server", "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
# A browser without a window does not load the icon by itself.
_LOAD_ICON = """async () => {
    const icon = new Image();
    icon.src = document.querySelector("link[rel=icon]").href;
    await icon.decode();
}"""


class NoChromiumError(Exception):
    """No Chromium of this machine starts; the text says why each does not."""


def on_path() -> list[str]:
    """Return the programs on PATH that should be a Chromium."""
    return [found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the first Chromium that starts: those on PATH, then the one that Playwright keeps.

    Raises:
        NoChromiumError: none does.
    """
    reasons = []
    async with async_playwright() as playwright:
        for program in (*on_path(), None):
            try:
                browser = await playwright.chromium.launch(executable_path=program, args=_FLAGS)
            except Error as error:
                reasons.append(f"{program or "Playwright's"}: {error.message.strip().splitlines()[0]}")
                continue
            async with browser:
                yield browser
            return
    raise NoChromiumError(f"No Chromium starts ({'; '.join(reasons)}). python -m tests.support.browser gets one.")


@asynccontextmanager
async def visiting(browser: Browser, url: str, size: Size = DESKTOP) -> AsyncIterator[Page]:
    """Open a page at `url`; at the end it had no error, kept to its host, fits its window and has an icon."""
    context = await browser.new_context(
        viewport={"width": size.width, "height": size.height}, is_mobile=size.mobile, device_scale_factor=1
    )
    context.set_default_timeout(PATIENCE)
    async with context:
        page = await context.new_page()
        errors, requests = await _listen(page)
        await page.goto(url)
        yield page
        await page.evaluate(_LOAD_ICON)
        assert not errors, errors
        hosts = {urlsplit(asked).netloc for asked in requests if not asked.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(url).netloc}, hosts
        assert await page.evaluate("document.documentElement.scrollWidth") <= size.width, "it is too wide"


async def _listen(page: Page) -> tuple[list[str], list[str]]:
    """Return the errors of a page and of its workers, and what they ask for; both lists grow as it happens."""
    errors: list[str] = []
    requests: list[str] = []

    def log(event: dict[str, Any]) -> None:
        if event["entry"]["level"] == "error":
            errors.append(event["entry"]["text"])

    def issue(event: dict[str, Any]) -> None:
        if event["issue"]["code"] == "ContentSecurityPolicyIssue":
            errors.append(json.dumps(event["issue"]))

    # Only the context hears requests of service workers and exceptions of workers.
    context = page.context
    context.on("console", lambda message: errors.append(message.text) if message.type in {"error", "assert"} else None)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("request", lambda request: requests.append(request.url))
    # Playwright keeps back what breaks the policy of a worker, or breaks the page's in a `try`.
    devtools = await context.new_cdp_session(page)
    devtools.on("Log.entryAdded", log)
    devtools.on("Audits.issueAdded", issue)
    await devtools.send("Log.enable")
    await devtools.send("Audits.enable")
    return errors, requests


# In a process of its own: on a bare system Playwright's Node lacks libatomic.so.1, and complains on the terminal.
_START = [sys.executable, "-m", "tests.support.browser", "start"]


async def start() -> None:
    """Start a Chromium and end it; exit with the reason where none starts."""
    try:
        async with chromium():
            pass
    except Exception as error:  # noqa: BLE001 - nothing narrower says that Playwright's Node does not start
        sys.exit(str(error))


def get() -> None:
    """Get a Chromium where none starts, and say so in a line.

    Raises:
        SystemExit: no way leads to one that starts; the text ends with the command to type.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    said = []
    for way in ([], *_ways()):  # at first without any
        if way:
            print(f"Getting Chromium for the tests (once): {shlex.join(way[-1])} …", file=sys.stderr)
        for command in (*way, _START):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                said.append(done.stderr.strip())
                break
        else:
            return
    sys.exit(
        "\n".join(said) + "\nNo Chromium could be got. Type: sudo apt-get install chromium. Where that brings none, "
        "as on Ubuntu: sudo .venv/bin/python -m playwright install-deps chromium. Then make test again."
    )


def _ways() -> Iterator[list[list[str]]]:
    keep = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends"]
        yield [["apt-get", "update"], [*install, "chromium"]]
        yield [[*install, "libatomic1"], [*keep, "--with-deps"]]
    else:
        yield [keep]


if __name__ == "__main__":
    if sys.argv[1:] == ["start"]:
        asyncio.run(start())
    else:
        get()
