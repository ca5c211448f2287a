"""`loragate-server catalogue`: hundreds of thousands of adapters as one job."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
)
from loragate_server.cli.report import offered
from loragate_server.logs.lines import set_up_logs
from loragate_server.report.wording import REPORT
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

NEEDS_EXTRA = "catalogue needs the extra `ray`: pip install 'loragate-server[ray]'"

catalogue = typer.Typer(no_args_is_help=True, help="Audits of whole catalogues, as one job.")


@catalogue.callback()
def _root() -> None:
    """Holds the subcommands."""


@catalogue.command()
def scan(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, an address like s3://bucket/loras, or a manifest (.parquet, .jsonl).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results. Default: catalogue in the state directory."),
    ] = None,
    base_model: Annotated[str, typer.Option(help="Name; the first configured one if empty.")] = "",
    address: Annotated[
        str, typer.Option(help="Ray cluster (auto, or ray://head:10001); else this machine.")
    ] = "",
    auditors: Annotated[
        int, typer.Option(min=1, help="Processes that hold a base model each.")
    ] = 1,
    readers: Annotated[int, typer.Option(min=1, help="Processes that read and check files.")] = 1,
    batch: Annotated[
        int, typer.Option(min=0, help="Files per launch; 0: 32 on CPUs, 256 on GPUs.")
    ] = 0,
    retry: Annotated[
        bool, typer.Option("--retry", help="Look again at files whose reading or audit failed.")
    ] = False,
    http: Annotated[str, typer.Option(help="Address of /metrics and /healthz.")] = "127.0.0.1:0",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Audits every adapter that a source lists, each once, and goes on where it was ended.

    Verdicts go into the decision log and the database as those of a live audit do, and into
    Parquet files below --out. The same command again looks at what is new or was not reached; with
    another library, policy or base model everything is audited again.

    A running server holds its decision log: give a scan beside it another --state-dir or
    decision_log, and the same database_url.

    Exit codes: 0 every file has a decision, 1 some were refused and are named in the results,
    3 the scan ended early; give the same command again.

    [bold]Examples[/bold]

      loragate-server catalogue scan /srv/loras
      loragate-server catalogue scan new-today.parquet --auditors 8 --out /srv/results
      loragate-server catalogue scan s3://bucket/loras --address auto --auditors 64
    """
    flags = {
        "state_dir": state_dir,
        "listen": {"grpc": "127.0.0.1:0", "http": http},
        "rest": {"enabled": False},
    }
    wanted = load(config, flags)
    set_up_logs(wanted.log.level, wanted.log.format)
    if not all(importlib.util.find_spec(name) for name in ("ray", "pyarrow")):
        fail(NEEDS_EXTRA, EXIT_USAGE)
    from loragate_server.app.preflight import require
    from loragate_server.catalogue.listing import SourceError, open_source

    with failures():
        require(wanted)
        import asyncio

        from loragate_server.app.cataloguing import Job, entry_of
        from loragate_server.app.cataloguing import scan as run
        from loragate_server.catalogue.ray_job import Machines

        on_gpu = entry_of(wanted, base_model).device.startswith("cuda")
        machines = Machines(
            address=address,
            auditors=auditors,
            readers=readers,
            gpus=1.0 if on_gpu else 0.0,
            batch=batch or (256 if on_gpu else 32),
        )
        folder = (out or wanted.state_folder / "catalogue").expanduser().absolute()
        try:
            job = Job(open_source(source), folder, machines, base_model, retry)
            done = asyncio.run(run(wanted, job, lambda line: typer.echo(line, err=True)))
        except SourceError as error:
            fail(str(error), EXIT_FAILED)
    typer.echo(
        f"{done.listed} files, {done.refused} refused, {done.left} left; results in {folder}"
    )
    if done.left:
        raise typer.Exit(EXIT_FAILED)
    if done.refused:
        raise typer.Exit(EXIT_FOUND_WRONG)


@catalogue.command()
def summary(
    folder: Annotated[
        Path, typer.Argument(help="Results of one scan, as `scan` names them.", show_default=False)
    ],
    language: Annotated[
        str,
        typer.Option(
            help="Language of the page.",
            metavar=f"[{'|'.join(REPORT.languages)}]",
            callback=offered,
        ),
    ] = DEFAULT_LANGUAGE,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: summary.html in the folder."),
    ] = None,
) -> None:
    """Writes what a scan found as one HTML page: verdicts, concepts, families, refusals, cost.

    [bold]Example[/bold]

      loragate-server catalogue summary /srv/results/69748da27a2f9655 --language ja
    """
    if not importlib.util.find_spec("pyarrow"):
        fail(NEEDS_EXTRA, EXIT_USAGE)
    from loragate_server.catalogue.results import parts_in
    from loragate_server.catalogue.summary import summarise
    from loragate_server.report.summary import render_summary

    if not parts_in(folder):
        fail(f"{folder} holds no results of a scan; name a folder below its --out", EXIT_USAGE)
    with failures():
        found = summarise(folder)
        file = out or folder / "summary.html"
        file.write_text(render_summary(found, language), encoding="utf-8")
    typer.echo(f"{file}: {found.files} files, {language}")
