"""Headless Chromium over plain HTTP: the few commands of WebDriver that the page tests need."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
PAGES = [
    "index.html",
    "papers/adamp.html",
    "papers/apex.html",
    "verdicts.html",
    "optimizers.html",
]
TAB, ENTER, SHIFT = "\ue004", "\ue007", "\ue008"


class Browser:
    """One Chromium with one window."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self._profile = tempfile.mkdtemp(prefix="gradworks-chromium-")
        self._driver = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._base = f"http://127.0.0.1:{self._port()}"
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={self._profile}"],
            "perfLoggingPrefs": {"enableNetwork": True, "enablePage": False},
        }
        capabilities = {
            "alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
        }
        value = self._call("POST", "/session", {"capabilities": capabilities})
        self._session = f"/session/{value['sessionId']}"
        self.resize(width, height)
        self.open("about:blank")  # away from the browser's own first page
        self.console()
        self.requests()

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
        raise RuntimeError("chromedriver did not start")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and its driver, and remove its profile."""
        with contextlib.suppress(OSError, RuntimeError):
            self._call("DELETE", self._session)
        self._driver.terminate()
        self._driver.wait(timeout=10)
        if self._driver.stdout is not None:
            self._driver.stdout.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from error

    def do(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        body = {"cmd": command, "params": parameters}
        return self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def open(self, address: str | Path, fragment: str = "") -> None:
        """Go to a page and wait until it is loaded."""
        if isinstance(address, Path):
            address = address.resolve().as_uri()
        self._call("POST", f"{self._session}/url", {"url": address + fragment})

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; it may return a promise."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def keys(self, *keys: str) -> None:
        """Press and release keys, one after the other, as a reader does."""
        actions = [{"type": kind, "value": k} for k in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._call("POST", f"{self._session}/actions", {"actions": [source]})

    def resize(self, width: int, height: int = 900) -> None:
        """Take the size of a screen, a phone's too."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """Say what the system prefers: ``light`` or ``dark``."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.do("Emulation.setEmulatedMedia", features=features)

    def console(self) -> list[str]:
        """What the console said since the last call."""
        lines = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [f"{line['level']}: {line['message']}" for line in lines]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        lines = self._call("POST", f"{self._session}/se/log", {"type": "performance"})
        events = [json.loads(line["message"])["message"] for line in lines]
        return [
            e["params"]["request"]["url"]
            for e in events
            if e["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a screenshot."""
        shot = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


def until(check: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait for the page: it loads and draws in its own time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


def fresh(browser: Browser, page: Path, fragment: str = "") -> None:
    """Open a page as on a first visit."""
    browser.open(page)
    browser.js("localStorage.clear()")
    browser.open("about:blank")
    browser.open(page, fragment)


def see_everything(browser: Browser) -> None:
    """Open what is folded and wait for every plot."""
    browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.js("document.querySelectorAll('.plot-box').forEach(p => p.scrollIntoView())")
    plots = "return [...document.querySelectorAll('.plot-box')]"
    for i in range(browser.js(plots + ".length")):
        browser.js(plots + "[arguments[0]].scrollIntoView()", i)
        until(lambda i=i: browser.js(plots + "[arguments[0]].dataset.ready", i), f"plot {i}")


# Computed from what is really painted: text against the nearest opaque background behind it.
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgba(text) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function light([r, g, b]) {
  const f = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
}
function ground(el) {
  for (; el; el = el.parentElement) {
    const c = rgba(getComputedStyle(el).backgroundColor);
    if (c[3] === 255) return c;
    if (c[3] !== 0) return null;
  }
  return rgba('white');
}
const bad = [], seen = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let count = 0;
while (walk.nextNode()) {
  const el = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim()) continue;
  if (el.closest('script,style,noscript,title,.sr,.skip')) continue;
  const style = getComputedStyle(el);
  if (!el.getClientRects().length || style.visibility === 'hidden') continue;
  const svg = el instanceof SVGElement;
  const ink = rgba(svg ? style.fill : style.color), back = ground(el);
  if (!back) continue;
  const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  count += 1;
  const key = el.tagName + '.' + (el.getAttribute('class') || '') + ' ' + ratio.toFixed(2);
  if (ratio < 4.5 && !seen.has(key)) {
    seen.add(key); bad.push(key + ' ' + walk.currentNode.data.trim().slice(0, 40));
  }
}
return {count, bad};
"""
