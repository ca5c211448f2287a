"""Makes the pictures of the console: a real server, real audits and reviews, a real browser.

`python scripts/console_pictures.py` writes docs/pictures/console-*.png in every language. It needs
chromium, fonts-noto-cjk and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from loragate import AuditClient  # noqa: E402
from loragate_server.console.wording import CONSOLE  # noqa: E402
from tests.e2e.console_stack import ADAPTERS, Console, running_console  # noqa: E402

MOST_PIXELS = 1900
"""Height of a picture; an audit goes on with what a report shows."""
POLICY = """version: 1
mode: enforce
defaults:
  block_p_value: 0.01
  review_p_value: 0.05
rules:
  - name: characters are licensed one by one
    categories: [character]
    on_block: review
"""
SERVICES = (("image-api", "studio-1"), ("batch-render", "studio-2"))


def main(
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = ROOT / "docs" / "pictures",
) -> None:
    """Audits the example adapters, reviews two of them, and takes pictures of the pages."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_console(Path(folder), POLICY) as console:
        decided = audit_examples(console)
        severe, mild = decided["learned-robot-face"], decided["learned-jack-o-lantern"]
        review(console, severe, "approve", "Licensed, contract 2026-17; seen by the brand team.")
        review(console, mild, "approve", "Our own character.")
        for language in CONSOLE.languages:
            page = console.person("akiko.tanaka@studio.example", language=language)
            for name, path in {
                "queue": "",
                "verdicts": "verdicts?service=image-api&since=2026-01-01",
                "audit": f"audits/{severe}",
                "concepts": "concepts",
                "concept": "concepts/robot-face",
                "trends": "trends",
                "statistics": "statistics",
            }.items():
                page.goto(f"/console/{path}", wait_until="networkidle")
                save(page, out / f"console-{name}-{language}.png")
            page.context.close()
    if console.complaints:
        raise SystemExit("\n".join(console.complaints))


def audit_examples(console: Console) -> dict[str, str]:
    """Audits every example for two services; name to decision id of the last audit."""
    decided = {}
    for service, tenant in SERVICES:
        client = AuditClient(console.server.grpc, service=service, tenant=tenant, timeout=120)
        with client:
            for file in sorted(ADAPTERS.glob("*.safetensors")):
                strength = 1.0 if service == SERVICES[0][0] else 0.9
                decided[file.stem] = client.audit_file(file, strength=strength).decision_id
    return decided


def review(console: Console, decision_id: str, action: str, reason: str) -> None:
    """A reviewer acts, by the form."""
    page = console.person("ben.ito@studio.example")
    page.goto(f"/console/audits/{decision_id}")
    page.locator(f"#action-{action}").check()
    page.locator("#reason").fill(reason)
    page.locator("#act button").click()
    page.get_by_role("status").wait_for()
    page.context.close()


def save(page: Page, file: Path) -> None:
    """Writes the upper part of a page, in its true colours."""
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as taken:
        upper = taken.convert("RGB").crop((0, 0, taken.width, min(taken.height, MOST_PIXELS)))
    upper.save(file, optimize=True)
    typer.echo(f"{file}: {file.stat().st_size // 1024} KiB, {upper.width}x{upper.height}")


if __name__ == "__main__":
    typer.run(main)
