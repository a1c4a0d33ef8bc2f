"""A page in a browser: what `page_probe.js` finds in it on a narrow and on a wide screen."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next((path for path in BROWSERS if path), None)
COLLECT = """
const seen = [];
addEventListener("message", e => {
  seen.push(JSON.parse(e.data));
  document.title = JSON.stringify(seen);
});
"""


def seen_by_a_browser(page: Path, folder: Path, *, dark: bool) -> tuple[dict[int, Any], str]:
    """What `page_probe.js` says of the page at 390 and at 1280 pixels, by width, and the browser's
    log. folder: where copies of the page and the browser's profile may be."""
    probe = (Path(__file__).parent / "page_probe.js").read_text()
    text = page.read_text().replace("<head>", f"<head><script>{probe}</script>")
    (folder / "measured.html").write_text(text)
    frames = "".join(
        f'<iframe src="measured.html" style="border:0;width:{width}px;height:900px"></iframe>'
        for width in (390, 1280)
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><title></title><script>{COLLECT}</script>{frames}")
    found = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--window-size=1400,1900",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--enable-logging=stderr",
            wrapper.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = re.search(r"<title>(\[.*?\])</title>", found.stdout, flags=re.S)
    assert told is not None, found.stdout[:2000]
    return {one.pop("width"): one for one in json.loads(unescape(told[1]))}, found.stderr
