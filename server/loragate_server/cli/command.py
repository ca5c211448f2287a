"""The command `loragate-server`. Loads torch only for commands that need a model."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from loragate_server import __version__
from loragate_server.cli import checkpoints as sealed
from loragate_server.cli.base import base
from loragate_server.cli.calibrate import calibrate
from loragate_server.cli.catalogue import catalogue
from loragate_server.cli.concepts import concepts
from loragate_server.cli.console_demo import with_demo
from loragate_server.cli.devices import hmac_of
from loragate_server.cli.evaluate import evaluate
from loragate_server.cli.events import events
from loragate_server.cli.group import Group, filled
from loragate_server.cli.intercept import intercept
from loragate_server.cli.interrupts import end_in_imports
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_INTERRUPTED,
    ConfigOption,
    StateOption,
    failures,
    load,
    make_folders,
    warn,
)
from loragate_server.cli.owner import end_with_input
from loragate_server.cli.policy import policy
from loragate_server.cli.records import downgrade, reconcile, revision
from loragate_server.cli.replay import replay
from loragate_server.cli.report import report
from loragate_server.cli.retention import retention
from loragate_server.cli.signing import signing
from loragate_server.logs.lines import set_up_logs

_OVERVIEW = """
Decides whether a LoRA may be loaded by an image server.

Settings come from flags, LORAGATE_* variables (LORAGATE_LISTEN__GRPC=127.0.0.1:50051) and a
YAML file, in this order. Without any, the server audits on a small embedded base model.

[bold]Examples[/bold]

  loragate-server serve
  loragate-server serve --config /etc/loragate.yaml --log-format json
  loragate-server config check --config /etc/loragate.yaml
  loragate-server policy check /etc/loragate/policy.yaml
  loragate-server intercept explain --extractor comfyui < request.http
  loragate-server base add sdxl --from /models/sdxl --config /etc/loragate.yaml
  loragate-server calibrate /srv/loras/reviewed
  loragate-server catalogue scan /srv/loras
  loragate-server report 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f --language ja
  loragate-server replay --policy stricter.yaml
  loragate-server concepts add mascot --name "Our mascot" --severity high mascot-*.png

Exit codes: 0 done, 1 something checked is wrong, 2 wrong usage or configuration, 3 failed,
130 ended by Ctrl-C.
"""

MAX_PROBLEMS_SHOWN = 10
"""Of a log; a file that is none has one in every line."""

application = Group(
    name="loragate-server",
    help=filled(_OVERVIEW.strip()),
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
settings = Group(no_args_is_help=True, help="The server's own configuration.")
database = Group(no_args_is_help=True, help="The database of decisions.")
decision_log = Group(no_args_is_help=True, help="The decision log.")
application.command()(calibrate)
application.command()(evaluate)
application.command()(report)
application.command()(replay)
application.add_typer(base, name="base")
application.add_typer(catalogue, name="catalogue")
application.add_typer(concepts, name="concepts")
application.add_typer(events, name="events")
application.add_typer(intercept, name="intercept")
application.add_typer(policy, name="policy")
application.add_typer(settings, name="config")
application.add_typer(signing, name="signing")
application.add_typer(retention, name="retention")
application.add_typer(database, name="db")
application.add_typer(decision_log, name="log")
sealed.add_to(decision_log)
decision_log.command("hmac")(hmac_of)
database.command("revision")(revision)
database.command("downgrade")(downgrade)
decision_log.command("reconcile")(reconcile)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loragate-server {__version__}")
        raise typer.Exit


@application.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Holds the options of the command itself."""


@application.command()
def serve(
    config: ConfigOption = None,
    grpc: Annotated[
        str | None, typer.Option(help="gRPC address: 127.0.0.1:50051 or unix:/run/loragate.sock.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(help="Address of /metrics, /healthz and /readyz.")
    ] = None,
    state_dir: StateOption = None,
    policy_file: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; followed while it changes.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; 0: torch chooses.")] = None,
    kernel_backend: Annotated[str | None, typer.Option(help="reference or triton.")] = None,
    reflection: Annotated[
        bool | None, typer.Option("--reflection/--no-reflection", help="Describe the API.")
    ] = None,
    insecure_off_loopback: Annotated[
        bool | None,
        typer.Option("--insecure-off-loopback", help="Listen to strangers, without TLS. Tests."),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="human or json.")] = None,
    console_demo: Annotated[
        bool,
        typer.Option("--console-demo", help="Console for a first look, by a link, on loopback."),
    ] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End, too, when standard input does: a pipe.")
    ] = False,
) -> None:
    """Serves until it gets SIGTERM or SIGINT; then finishes what is in flight.

    Callers ask over gRPC; proxies too, or on the HTTP port (intercept.http), or send WebSockets to
    the relays of the configuration (intercept.relays), which read every message.

    Says "loragate-server ready: grpc=ADDRESS http=ADDRESS" on standard output when it can decide,
    with --console-demo a link to the console before; everything else goes to standard error. A
    port of 0 lets the system choose.

    [bold]Examples[/bold]

      loragate-server serve --grpc 127.0.0.1:0 --http 127.0.0.1:0
      LORAGATE_INTAKE__ROOTS='["/srv/loras"]' loragate-server serve --policy policy.yaml
    """
    flags = {
        "listen": {"grpc": grpc, "http": http},
        "state_dir": state_dir,
        "policy": policy_file,
        "threads": threads,
        "kernel_backend": kernel_backend,
        "reflection": reflection,
        "insecure_off_loopback": insecure_off_loopback,
        "log": {"level": log_level, "format": log_format},
    }
    if until_eof:
        end_with_input()
    wanted = with_demo(config, flags) if console_demo else load(config, flags)
    set_up_logs(wanted.log.level, wanted.log.format)
    from loragate_server.app.ports import GRPC, HTTP, require_free
    from loragate_server.app.preflight import require, warnings

    with failures():
        require(wanted)
        warn(warnings(wanted))
        make_folders(wanted)
        require_free(wanted.listen.grpc, GRPC)
        require_free(wanted.listen.http, HTTP)
        import asyncio

        with _no_collections():
            from loragate_server.app.serve import serve_until_signal

        try:
            drained = asyncio.run(serve_until_signal(wanted, _say_ready, _end_process))
        finally:
            gc.unfreeze()  # else extensions say at the end that their objects have leaked
    if not drained:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _no_collections() -> Iterator[None]:
    """While modules are loaded nothing is to be collected, and what they made stays for good.

    Looking through it again and again would take a quarter of the start, and later a quarter of a
    second, now and then, in the middle of a request.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _end_process() -> None:
    """Ends without waiting for anything, which not even `sys.exit` does."""
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


def _say_ready(grpc: str, http: str) -> None:
    typer.echo(f"loragate-server ready: grpc={grpc} http={http}")
    sys.stdout.flush()


@settings.command("show")
def config_show(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints the configuration in force, as YAML that can be a configuration file.

    Passwords in the database URL are replaced by ***, and so are names, passwords and values of the
    query in other addresses, such as those of receivers of events.

    [bold]Example[/bold]

      LORAGATE_THREADS=2 loragate-server config show
    """
    from loragate_server.config.shown import shown_database, without_secrets

    wanted: dict[str, Any] = load(config, {"state_dir": state_dir}).model_dump(mode="json")
    database = wanted["database_url"]
    shown = without_secrets(wanted) | {"database_url": database and shown_database(database)}
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.dump(shown, sys.stdout)


@settings.command("check")
def config_check(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Says what would keep the server from starting, as far as it shows without loading a model.

    Looks at every setting and at the files, folders and packages that it names; writes nothing.

    [bold]Example[/bold]

      loragate-server config check --config /etc/loragate.yaml && systemctl restart loragate
    """
    from loragate_server.app.preflight import problems, warnings

    wanted = load(config, {"state_dir": state_dir})
    found = problems(wanted)
    warn(warnings(wanted))
    for line in found:
        typer.echo(line, err=True)
    if found:
        raise typer.Exit(EXIT_FOUND_WRONG)
    typer.echo("The configuration can be served.")


@database.command("upgrade")
def database_upgrade(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Creates or migrates the tables. `serve` does it too; several may do it at once.

    [bold]Example[/bold]

      LORAGATE_DATABASE_URL=postgresql://loragate@db/loragate loragate-server db upgrade
    """
    from loragate_server.record.migrate import upgrade

    wanted = load(config, {"state_dir": state_dir})
    with failures():
        wanted.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        upgrade(wanted.database)
    typer.echo("The database is up to date.")


@decision_log.command("verify")
def log_verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Log files, rotated ones first. Default: the configured log."),
    ] = None,
    checkpoints: sealed.CheckpointOption = None,
    keys: sealed.KeyOption = None,
    witnesses: sealed.WitnessOption = None,
    tree: sealed.TreeOption = None,
    clock_skew: sealed.SkewOption = sealed.DEFAULT_SKEW_S,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Checks that no line of the decision log was changed, removed or inserted.

    An end that was cut off, or a file that was written anew, only shows against a --checkpoint that
    was handed to somebody else: a file, a folder or a URL.

    [bold]Example[/bold]

      loragate-server log verify decisions.jsonl.1 decisions.jsonl --checkpoint s3://audit/logs
    """
    from loragate_server.record.chain import verify_log
    from loragate_server.record.rotation import files_of

    wanted = load(config, {"state_dir": state_dir})
    chosen = files or files_of(wanted.decision_log_file)
    with failures():
        found = verify_log(*chosen)
    held_to = sealed.Handed(checkpoints or [], keys or [], witnesses or [], tree, clock_skew)
    problems = found.problems + held_to.problems(wanted, chosen)
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        typer.echo(f"{problem.file}:{problem.line}: {problem.message}", err=True)
    if (more := len(problems) - MAX_PROBLEMS_SHOWN) > 0:
        typer.echo(f"... and {more} more problems; is that a decision log?", err=True)
    typer.echo(
        f"{found.lines} lines, {len(found.decision_ids)} decisions, last digest {found.last.sha256}"
    )
    if problems:
        raise typer.Exit(EXIT_FOUND_WRONG)


def main() -> None:
    """The entry point of the command."""
    # Before torch is loaded: threads that wait between two operations sleep instead of spinning,
    # which on few cores is several times faster beside an image server.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    end_in_imports()
    try:
        application()
    except KeyboardInterrupt:  # before or after a command runs; typer sees to it in between
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
