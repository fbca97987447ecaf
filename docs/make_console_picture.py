"""Writes console.png: the page over a demo's fleet, as a browser shows it. Run it after the page has changed.

    python docs/make_console_picture.py
"""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
ASSET = "cycle-00002"
WIDTH = 880
SETTLED_MS = 20_000
BYTES_MAX = 150_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        env = os.environ | {"USP_WORKER__CACHE_DIR": str(HERE.parent / ".predictor" / "cache")}
        command = [sys.executable, "-m", "worker", "demo", "--seconds", "240", "--json"]
        env["PYTHONPATH"] = str(HERE.parent)
        with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as demo:
            try:
                assert demo.stderr is not None
                address = next(line.split()[-1] for line in demo.stderr if "in a browser" in line)
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                page = browser.new_page(viewport={"width": WIDTH, "height": 720})
                parts = [shot(page, address, ".leases"), shot(page, f"{address}#/assets/{ASSET}", ".fan-chart")]
                write(page, parts)
            finally:
                demo.terminate()


def shot(page: Page, address: str, shown: str) -> bytes:
    """One view once it is settled, down to the end of what it is to show."""
    page.goto(address)
    page.locator(shown).first.wait_for(timeout=120_000)
    if shown == ".leases":
        page.locator(".worker").nth(1).wait_for(timeout=120_000)  # the second worker has come, too
    page.wait_for_timeout(SETTLED_MS)
    page.evaluate("document.getElementById('place').textContent = 'usp at redis://127.0.0.1:6390'")
    bottom = page.evaluate(f"document.querySelector('{shown}').getBoundingClientRect().bottom")
    return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 20}, full_page=True)


def write(page: Page, parts: list[bytes]) -> None:
    """All of them in one picture, one below the other."""
    images = "".join(f'<img src="data:image/png;base64,{base64.b64encode(part).decode()}">' for part in parts)
    page.goto("about:blank")
    page.set_content(f"<style>body{{margin:0}}img{{display:block}}</style>{images}")
    picture = page.screenshot(full_page=True)
    if len(picture) > BYTES_MAX:
        raise SystemExit(f"the picture has {len(picture)} bytes, more than {BYTES_MAX}")
    (HERE / "console.png").write_bytes(picture)


if __name__ == "__main__":
    main()
