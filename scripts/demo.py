"""The main job on real input: a server, its SDK, and five adapter files.

Starts a real server process on loopback with the embedded base model, audits the files through the
SDK, prints what was decided and the counters that the server counted, and stops the server.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from loragate import AuditClient, AuditError
from loragate.cli.table import measures
from loragate_server.testing import server_process

ADAPTERS = Path(__file__).parent.parent / "examples" / "adapters"
COLOURS = {"ALLOW": "green", "BLOCK": "red", "REVIEW": "yellow", "INCONCLUSIVE": "yellow"}


def broken_copy(folder: Path) -> Path:
    """A real adapter whose last bytes are missing, as after an interrupted download."""
    whole = (ADAPTERS / "learned-jack-o-lantern.safetensors").read_bytes()
    path = folder / "interrupted-download.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    return path


def audit_row(client: AuditClient, path: Path) -> list[str]:
    """One line of the table: what the server says about one file."""
    began = time.monotonic()
    try:
        result = client.audit_file(path)
    except AuditError as error:
        took = f"{time.monotonic() - began:.2f} s"
        return [path.stem, "[red]refused[/]", "-", "-", "-", "-", error.reason, took]
    took = f"{time.monotonic() - began:.2f} s"
    name = result.verdict.name
    verdict = f"[{COLOURS.get(name, 'red')}]{name}[/]"
    if not result.findings:
        return [path.stem, verdict, "-", "-", "-", "-", result.remedy.name, took]
    top = result.findings[0]
    hit = top.verdict.name != "ALLOW"
    p_value, score, degree = measures(top)  # as `loragate audit` shows them
    return [
        path.stem,
        verdict,
        top.concept_name if hit else "-",
        score,
        p_value,
        degree,
        result.remedy.name.lower().replace("_", " "),
        took,
    ]


def decision_counters(http: str) -> list[str]:
    """The decision and refusal counters that are not zero, as the server exposes them."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [
        f"{sample.name}{sample.labels} {sample.value:g}"
        for family in text_string_to_metric_families(text)
        if family.name in ("loragate_decisions", "loragate_refusals")
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value > 0
    ]


def main() -> None:
    """Runs the demo; exits with 1 when a verdict is not the expected one."""
    console = Console(width=max(120, Console().width))
    table = Table(title="loragate: may these adapters be loaded?")
    for column in ("file", "verdict", "concept", "score", "p-value", "degree", "remedy", "time"):
        table.add_column(column, no_wrap=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    wanted = []
    with (
        tempfile.TemporaryDirectory(prefix="loragate-demo-") as folder,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        files = [
            (ADAPTERS / "harmless-watermelon.safetensors", "ALLOW"),
            (ADAPTERS / "harmless-sepia.safetensors", "ALLOW"),
            (ADAPTERS / "learned-jack-o-lantern.safetensors", "BLOCK"),
            (ADAPTERS / "learned-bomb.safetensors", "BLOCK"),
            (broken_copy(Path(folder)), "refused"),
        ]
        task = progress.add_task("starting the server")
        with server_process(Path(folder)) as server, AuditClient(server.grpc) as client:
            for path, expected in files:
                progress.update(task, description=f"auditing {path.name}")
                row = audit_row(client, path)
                table.add_row(*row)
                wanted.append((path.name, expected, expected in row[1]))
            counters = decision_counters(server.http)
            progress.update(task, description="stopping the server")
    console.print(table)
    console.print("Counters from /metrics:")
    for line in counters:
        console.print(f"  {line}", markup=False, highlight=False)
    wrong = [f"{name}: expected {expected}" for name, expected, right in wanted if not right]
    if wrong:
        raise SystemExit("not as expected: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
