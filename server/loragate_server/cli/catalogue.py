"""`loragate-server catalogue`: hundreds of thousands of adapters as one job."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from loragate_server.cli.catalogue_checks import opened, require_reachable
from loragate_server.cli.group import Group
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    NO_MEMORY,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
    make_folders,
    warn,
)
from loragate_server.cli.report import offered
from loragate_server.cli.trial import entry_of
from loragate_server.config.schema import Config, StartError
from loragate_server.errors import NoDecisionError
from loragate_server.logs.lines import set_up_logs
from loragate_server.out_of_memory import is_out_of_memory
from loragate_server.report.wording import REPORT
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

_log = logging.getLogger(__name__)

NEEDS_EXTRA = "catalogue needs the extra `ray`: pip install 'loragate-server[ray]'"

catalogue = Group(no_args_is_help=True, help="Audits of whole catalogues, as one job.")


@catalogue.callback()
def _root() -> None:
    """Holds the subcommands."""


SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A folder, an address like s3://bucket/loras, or a manifest (.parquet, .jsonl).",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the results. Default: catalogue in the state directory."),
]
BaseModelOption = Annotated[
    str, typer.Option(help="Name of the base model; the first configured one if empty.")
]
AddressOption = Annotated[
    str, typer.Option(help="Ray cluster (auto, or ray://head:10001); else this machine.")
]
AuditorsOption = Annotated[int, typer.Option(min=1, help="Processes that hold a base model each.")]
ReadersOption = Annotated[int, typer.Option(min=1, help="Processes that read and check files.")]
BatchOption = Annotated[
    int, typer.Option(min=0, help="Files per launch; 0: 32 on CPUs, 256 on GPUs.")
]
HttpOption = Annotated[str, typer.Option(help="Address of /metrics and /healthz.")]


@catalogue.command()
def scan(
    source: SourceArgument,
    out: OutOption = None,
    base_model: BaseModelOption = "",
    address: AddressOption = "",
    auditors: AuditorsOption = 1,
    readers: ReadersOption = 1,
    batch: BatchOption = 0,
    accept_refused: Annotated[
        bool, typer.Option("--accept-refused", help="End with 0 although files were refused.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="A source without adapters is no error.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Look again at files whose reading or audit failed.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Measure all; take nothing from earlier scans.")
    ] = False,
    http: HttpOption = "127.0.0.1:0",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Audits every adapter that a source lists, each once, and goes on where it was ended.

    Verdicts go into the decision log and the database as those of a live audit do, and into
    Parquet files below --out. The same command again looks at what is new, has changed or was not
    reached; with another library, policy or base model everything is decided again. Then files are
    read and screened again, and what their forward passes measured is taken from the record where
    they would measure the same.

    A running server holds its decision log: give a scan beside it another --state-dir, and the
    same database_url.

    Exit codes: 0 every file has a decision, 1 some were refused and are named in the results,
    3 the scan ended early (give the same command again), or the source lists no adapter.

    [bold]Examples[/bold]

      loragate-server catalogue scan /srv/loras
      loragate-server catalogue scan new-today.parquet --auditors 8 --out /srv/results
      loragate-server catalogue scan s3://bucket/loras --address auto --auditors 64
    """
    wanted = _load(config, state_dir, http)
    machines = _Asked(address, auditors, readers, batch)
    _run(
        wanted,
        source,
        out,
        base_model,
        machines,
        retry=retry,
        anew=anew,
        accept_refused=accept_refused,
        allow_empty=allow_empty,
    )


@catalogue.command()
def watch(
    source: SourceArgument,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between two looks.")] = 60.0,
    out: OutOption = None,
    base_model: BaseModelOption = "",
    address: AddressOption = "",
    auditors: AuditorsOption = 1,
    readers: ReadersOption = 1,
    batch: BatchOption = 0,
    http: HttpOption = "127.0.0.1:0",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Follows a source: scans it, and then again and again what is new or has changed.

    Local files are taken when they have not changed for ten seconds. Files whose reading or audit
    failed are tried again, after ever longer pauses. It ends by a signal, or when the policy
    changes, with exit code 3 only where files were left.

    [bold]Example[/bold]

      loragate-server catalogue watch s3://bucket/incoming --every 300
    """
    wanted = _load(config, state_dir, http)
    machines = _Asked(address, auditors, readers, batch)
    _run(wanted, source, out, base_model, machines, every_s=every)


@dataclass(frozen=True)
class _Asked:
    """The options about machines."""

    address: str
    auditors: int
    readers: int
    batch: int


def _load(config: Path | None, state_dir: Path | None, http: str) -> Config:
    flags = {
        "state_dir": state_dir,
        "listen": {"grpc": "127.0.0.1:0", "http": http},
        "rest": {"enabled": False},
    }
    wanted = load(config, flags)
    set_up_logs(wanted.log.level, wanted.log.format)
    if not all(importlib.util.find_spec(name) for name in ("ray", "pyarrow")):
        fail(NEEDS_EXTRA, EXIT_USAGE)
    return wanted


def _run(
    wanted: Config,
    source: str,
    out: Path | None,
    base_model: str,
    asked: _Asked,
    *,
    retry: bool = False,
    anew: bool = False,
    accept_refused: bool = False,
    allow_empty: bool = False,
    every_s: float | None = None,
) -> None:
    from loragate_server.app.preflight import require, warnings
    from loragate_server.catalogue.manifest import SourceError

    with failures():
        require(wanted)
        warn(warnings(wanted))
        entry = entry_of(wanted, base_model)
        listed = opened(source, may_be_empty=allow_empty or every_s is not None)
        require_reachable(asked.address)
        folder = (out or wanted.state_folder / "catalogue").expanduser().absolute()
        make_folders(wanted, folder, "--out")
        import asyncio

        from loragate_server.app.cataloguing import Job
        from loragate_server.app.cataloguing import scan as run
        from loragate_server.catalogue.ray_job import Machines

        typer.echo(f"on the base model {entry.name}, for {wanted.library_folder}", err=True)
        on_gpu = entry.device.startswith("cuda")
        machines = Machines(
            address=asked.address,
            auditors=asked.auditors,
            readers=asked.readers,
            gpus=1.0 if on_gpu else 0.0,
            batch=asked.batch or (256 if on_gpu else 32),
        )
        try:
            job = Job(listed, folder, machines, base_model, retry, anew, every_s)
            done = asyncio.run(run(wanted, job, lambda line: typer.echo(line, err=True)))
        except SourceError as error:
            fail(str(error), EXIT_FAILED)
        except (NoDecisionError, StartError, OSError, MemoryError):
            raise
        except Exception as error:  # of Ray, or of a damaged part: 1 says that files were refused
            if is_out_of_memory(error):
                fail(NO_MEMORY, EXIT_FAILED)
            _log.exception("the scan ended")
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            fail(f"The scan ended by a fault: {why}. Again, it goes on where it was.", EXIT_FAILED)
    told = f"{done.listed} files, {done.refused} refused, {done.left} left"
    typer.echo(f"{told}; results in {done.folder}")
    if done.left:
        raise typer.Exit(EXIT_FAILED)
    if done.refused and every_s is None and not accept_refused:
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
