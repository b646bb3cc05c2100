"""A picture of an experiment's overview, for the front page: its first lines and its first task."""

import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT

WIDTH, MARGIN = 1280, 20


def draw(results: Path, out: Path) -> None:
    """Write ``overview.html`` of an experiment, as Chromium shows it, as PNG of 64 colours.

    Args:
        results: the finished experiment's folder.

    Raises:
        UserError: no such page, no Playwright or no Chromium.
    """
    page = LAYOUT.overview.path(results)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not page.exists():
        raise UserError(f"{page}: no such file; run the experiment first")
    if chromium is None:
        raise UserError("Chromium is needed to draw a page; none is on the PATH")
    try:  # it comes with the extra `test` alone
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("Playwright is needed to draw a page: pip install '.[test]'") from error
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        first = tab.locator("section.card").first.bounding_box()
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": first["y"] + first["height"] + MARGIN}
        picture = tab.screenshot(full_page=True, clip=clip)
        browser.close()
    store.write_bytes(out, _small(picture))


def _small(picture: bytes) -> bytes:
    """The same PNG with 64 colours, a third of its size."""
    found = BytesIO()
    image = Image.open(BytesIO(picture)).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
    return found.getvalue()
