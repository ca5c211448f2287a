"""Renders report files to PNG with chromium, one picture a file, cut to the height of the page.

    .venv/bin/python scripts/report_pictures.py --out docs/pictures report-block.html
    .venv/bin/python scripts/report_pictures.py --out /tmp/look --width 390 --dark *.html

Needs chromium, and for Japanese reports a Japanese font; on Debian: apt-get install chromium
fonts-noto-cjk. Exits with 1 if a page could not be rendered, with 2 if chromium is missing.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
NARROWEST_WINDOW = 500
"""Pixels; chromium makes no narrower window, so a narrower page is shown in a frame."""

TIMEOUT_S = 120


def find_chromium() -> str | None:
    """The first browser on PATH that takes chromium's options."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def render(chromium: str, page: Path, picture: Path, width: int, height: int, dark: bool) -> None:
    """Renders one page.

    Args:
        chromium: path of the browser.
        page: an HTML file.
        picture: the PNG to write.
        width: of the window, in pixels.
        height: most pixels; what is below is cut off, and so is empty room.
        dark: as a reader sees it who has asked for dark pages.

    Raises:
        subprocess.SubprocessError: chromium failed, or took longer than TIMEOUT_S.
        OSError: it left no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        shown = page.resolve()
        if width < NARROWEST_WINDOW:
            shown = Path(folder, "frame.html")
            shown.write_text(_frame(page.resolve().as_uri(), width, height))
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={max(width, NARROWEST_WINDOW)},{height}",
            f"--screenshot={picture.resolve()}",
            shown.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)  # noqa: S603
    _cut(picture, width)


def _frame(address: str, width: int, height: int) -> str:
    source = html.escape(address)
    style = f"border:0;width:{width}px;height:{height}px;display:block"
    return f'<body style="margin:0"><iframe src="{source}" style="{style}"></iframe>'


def _cut(picture: Path, width: int) -> None:
    """Removes what is beside the page and the empty room below it."""
    with Image.open(picture) as opened:
        whole = opened.convert("RGB").crop((0, 0, width, opened.height))
    empty = Image.new("RGB", whole.size, whole.getpixel((1, whole.height - 1)))
    box = ImageChops.difference(whole, empty).getbbox()
    bottom = min(whole.height, box[3] + 24) if box else whole.height
    whole.crop((0, 0, width, bottom)).save(picture, optimize=True)


def main() -> int:
    """Renders the files that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path, help="HTML files of `report`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--width", type=int, default=1200, help="pixels; 390 is a phone")
    parser.add_argument("--height", type=int, default=9000, help="most pixels of a page")
    parser.add_argument("--dark", action="store_true", help="as in a dark browser")
    wanted = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print(
            "report_pictures: chromium is not on PATH; on Debian: apt-get install chromium",
            file=sys.stderr,
        )
        return 2
    wanted.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for page in wanted.pages:
        picture = wanted.out / f"{page.stem}.png"
        try:
            render(chromium, page, picture, wanted.width, wanted.height, wanted.dark)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"report_pictures: {page}: {error}", file=sys.stderr)
            failed = True
        else:
            print(picture)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
