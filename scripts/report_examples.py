"""Makes the reports of the documentation: a real server, two real audits, every language.

`python scripts/report_examples.py` writes docs/pictures/report-*.png; it needs chromium and
fonts-noto-cjk.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loragate import AuditClient
from loragate_server.report.wording import REPORT
from loragate_server.testing import server_process

ROOT = Path(__file__).parent.parent
ADAPTERS = ROOT / "examples" / "adapters"
EXAMPLES = {"block": "learned-jack-o-lantern", "allow": "harmless-watermelon"}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = ROOT / "docs" / "pictures",
) -> None:
    """Audits two example adapters and draws their reports with a browser."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / "state"
        state.mkdir()
        with (
            server_process(state) as server,
            AuditClient(server.grpc, service="pictures.example", tenant="design") as client,
        ):
            decided = {
                kind: client.audit_file(ADAPTERS / f"{file}.safetensors").decision_id
                for kind, file in EXAMPLES.items()
            }
        pages = []
        for kind, decision_id in decided.items():
            for language in REPORT.languages:
                page = folder / f"report-{kind}-{language}.html"
                _run(
                    *("-m", "loragate_server", "report", decision_id, "--language", language),
                    *("--out", page, "--state-dir", state),
                )
                pages.append(page)
        _run(ROOT / "scripts" / "report_pictures.py", *pages, "--out", out)


def _run(*arguments: object) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True)  # noqa: S603


if __name__ == "__main__":
    typer.run(main)
