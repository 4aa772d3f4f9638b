"""Headless Chromium for tests, driven over the Chrome DevTools Protocol.

`chromium()` starts one browser with a fresh profile; `Browser.page()` opens an isolated page, which
notes every console error, Content Security Policy violation and request, those of its workers
included. Names under `.test` lead to this machine and every other name leads nowhere, so a page
sees a host that is not localhost and can still reach nothing else.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

PATIENCE = 15
"""Seconds until something that does not happen on a page is a failure."""


@dataclass(frozen=True)
class Size:
    """A window, in CSS pixels."""

    width: int
    height: int
    mobile: bool


DESKTOP = Size(1280, 800, mobile=False)
PHONE = Size(390, 844, mobile=True)
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # its own sandbox needs rights that root in a container does not have
    "--disable-dev-shm-usage",  # /dev/shm is 64 MiB in a container
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_FIND = """(selector, text) => {
    const found = [...document.querySelectorAll(selector)].find(
        (element) => element.getClientRects().length && element.innerText.includes(text));
    if (!found) return null;
    found.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
    const box = found.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    return found.contains(document.elementFromPoint(x, y)) ? [x, y] : null;
}"""
"""The middle of the first visible element that matches, once nothing covers it."""


class Page:
    """One browser tab with its own cookies and storage."""

    def __init__(self, browser: "Browser", session: str, size: Size) -> None:
        self._browser = browser
        self._session = session
        self.size = size
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method on this page and return its result."""
        return await self._browser.call(method, session=self._session, **params)

    async def open(self, url: str) -> None:
        """Start to load `url`; what must then be there is for `wait_for` to say."""
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"

    async def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Return the JSON value of an expression as soon as it is truthy; of a node, `True`."""
        boxed = f"(value => value ? [value instanceof Node || value] : null)({expression})"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not (found := await self.evaluate(boxed)):
                    await asyncio.sleep(0.05)
                return found[0]
        text = await self.evaluate("document.body.innerText.slice(0, 2000)")
        pytest.fail(f"{expression} stayed false.\nerrors: {self.errors}\npage: {text}")

    async def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element that matches contains `text`."""
        await self.wait_for(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            f".some((element) => element.innerText.includes({json.dumps(text)}))"
        )

    async def click(self, selector: str, text: str = "") -> None:
        """Click the middle of the first visible element that matches and contains `text`."""
        x, y = await self.wait_for(f"({_FIND})({json.dumps(selector)}, {json.dumps(text)})")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def fill(self, selector: str, text: str) -> None:
        """Click into a field and replace what is in it, as typed text."""
        await self.click(selector)
        await self.evaluate("document.activeElement.select()")
        await self.call("Input.insertText", text=text)

    async def screenshot(self) -> bytes:
        """Return what is visible as a PNG file."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    def note(self, event: str, params: dict[str, Any]) -> None:
        """Keep what an event says of errors and requests."""
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "assert"}:
                self.errors.append(" ".join(str(arg.get("value", arg)) for arg in params["args"]))
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Audits.issueAdded" if params["issue"]["code"] == "ContentSecurityPolicyIssue":
                self.errors.append(json.dumps(params["issue"]["details"]))


async def assert_sound(page: Page, site: str) -> None:
    """The page had no error, kept to its host and fits its window."""
    assert not page.errors, page.errors
    hosts = {urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(site).netloc}, hosts
    assert await page.evaluate("document.documentElement.scrollWidth") <= page.size.width, "it is too wide"


class Browser:
    """A running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._workers: set[asyncio.Task[None]] = set()

    async def page(self, size: Size) -> Page:
        """Open an empty page of this size, which shares nothing with other pages."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"], size)
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            await page.call(f"{domain}.enable")
        await page.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        await page.call("Emulation.setDeviceMetricsOverride", deviceScaleFactor=1, **asdict(size))
        return page

    async def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        try:
            return await asyncio.wait_for(answer, PATIENCE)
        finally:
            del self._answers[number]

    async def listen(self) -> None:
        """Take what the browser sends, until it closes."""
        async for frame in self._socket:
            message = json.loads(frame.data)
            if answer := self._answers.get(message.get("id")):
                if "error" in message:
                    answer.set_exception(RuntimeError(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
            elif page := self._pages.get(message.get("sessionId", "")):
                page.note(message["method"], message["params"])
                if message["method"] == "Target.attachedToTarget":
                    task = asyncio.create_task(self._watch_worker(page, message["params"]["sessionId"]))
                    self._workers.add(task)
                    task.add_done_callback(self._workers.discard)

    async def _watch_worker(self, page: Page, session: str) -> None:
        self._pages[session] = page
        for method in ("Runtime.enable", "Network.enable", "Runtime.runIfWaitingForDebugger"):
            await self.call(method, session=session)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start Chromium with a fresh profile and end it, with all its processes, at the end."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.fail("Chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        profile = Path(folder)
        process = await asyncio.create_subprocess_exec(
            program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            url = await _devtools_url(profile / "DevToolsActivePort")
            async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
                browser = Browser(socket)
                listener = asyncio.create_task(browser.listen())
                yield browser
                await browser.call("Browser.close")
                await listener
            await asyncio.wait_for(process.wait(), PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _devtools_url(port_file: Path) -> str:
    async with asyncio.timeout(2 * PATIENCE):
        while (url := _read_url(port_file)) is None:
            await asyncio.sleep(0.05)
    return url


def _read_url(port_file: Path) -> str | None:
    lines = port_file.read_text().split() if port_file.exists() else []
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) == 2 else None
