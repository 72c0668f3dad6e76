"""Real Chromium against real servers; every page is listened to for errors and CSP violations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.stage import Stage, staged
from tests.contract.site import TOKEN, Site, running

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


expect.set_options(timeout=30_000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for the whole suite, and gone after it: its event loop would be in others' way."""
    path = os.environ.get("PRUNESCOPE_CHROMIUM") or shutil.which("chromium")
    assert path, "no Chromium: make test installs it, or set PRUNESCOPE_CHROMIUM to its path"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


@dataclass
class Listener:
    """Collects what a user would find in the console."""

    complaints: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: (
                self.complaints.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(
        viewport={"width": 1440, "height": 900}, accept_downloads=True, color_scheme="light"
    )
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def page(context: BrowserContext, listener: Listener) -> Iterator[Page]:
    """A page whose test fails when anything complained."""
    opened = context.new_page()
    listener.attach(opened)
    yield opened
    assert not listener.complaints, "\n".join(listener.complaints)


@pytest.fixture
def site(tmp_path: Path, context: BrowserContext) -> Iterator[Site]:
    """A real server with a stand-in for the worker; the browser is signed in."""
    with running(tmp_path / "data") as started:
        # Closed again: it would keep the test's page in the background, at few frames a second.
        tab = context.new_page()
        tab.goto(f"{started.url}/sign-in?token={TOKEN}")
        tab.close()
        yield started
        # An open event stream would keep the server from stopping.
        for tab in context.pages:
            tab.close()


@pytest.fixture
def stage(context: BrowserContext) -> Iterator[Stage]:
    """Real pages whose state is written by the test."""
    with staged() as opened:
        yield opened
        for tab in context.pages:
            tab.close()
