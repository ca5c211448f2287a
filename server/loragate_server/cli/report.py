"""`loragate-server report`: a recorded decision as a page for legal and brand people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.options import ConfigOption, StateOption, failures, load
from loragate_server.report.wording import REPORT
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

if TYPE_CHECKING:
    from loragate_server.config.schema import Config
    from loragate_server.record.verdict import Verdict
    from loragate_server.report.references import References

_STANDARD_OUTPUT = Path("-")
_NO_PICTURES = "note: the report has no reference pictures: {}"


def offered(language: str) -> str:
    """The language, if there are sentences in it."""
    if language not in REPORT.languages:
        raise typer.BadParameter(f"{language!r} is not one of {', '.join(REPORT.languages)}")
    return language


def report(
    decision_id: Annotated[
        str, typer.Argument(help="Id, as every answer and `loragate list` show it.")
    ],
    language: Annotated[
        str,
        typer.Option(
            help="Language of the report.",
            metavar=f"[{'|'.join(REPORT.languages)}]",
            callback=offered,
        ),
    ] = DEFAULT_LANGUAGE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; - for standard output. Default: loragate-DECISION_ID.html.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            help="Show what the concepts look like, as far as the console would show it: blurred "
            "where they are severe, not at all of console.sensitive_categories."
        ),
    ] = True,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Writes a decision as one HTML file that people who are no engineers can read.

    It says what was found, how sure that is, what to do and what was not checked.

    The file needs no network and can be printed and sent; one of the same name is replaced.

    [bold]Examples[/bold]

      loragate-server report 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f
      loragate-server report 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f --language ja --out hokoku.html
      loragate-server report 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f --config /etc/loragate.yaml --out -
    """
    from loragate_server.record.database import Database
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S
    from loragate_server.record.recorder import stored_verdict
    from loragate_server.report.render import render

    wanted = load(config, {"state_dir": state_dir})
    with failures():
        database = Database(wanted.database, DEFAULT_TIMEOUT_S)
        try:
            verdict = stored_verdict(database, decision_id)
        finally:
            database.close()
        page = render(verdict, language, _shown(wanted, verdict) if pictures else ())
        if out == _STANDARD_OUTPUT:
            typer.echo(page, nl=False)
            return
        file = out or Path(f"loragate-{verdict.decision_id}.html")
        file.write_text(page, encoding="utf-8")
    typer.echo(f"{file}: {verdict.decision.would_be_verdict.value}, {language}")


def _shown(wanted: Config, verdict: Verdict) -> tuple[References, ...]:
    """What the concepts of a decision look like; none where the library cannot be read."""
    from loragate_server.app.folders import read_library
    from loragate_server.concepts.thumbnails import thumbnail
    from loragate_server.config.schema import StartError
    from loragate_server.policy.decision import VerdictKind
    from loragate_server.report.references import Viewing, embedded

    if all(one.verdict is VerdictKind.ALLOW for one in verdict.decision.findings):
        return ()
    try:
        library = read_library(wanted.library_folder)
    except StartError as error:
        typer.echo(_NO_PICTURES.format(error), err=True)
        return ()
    rules = wanted.console
    viewing = Viewing(library.get, rules.four_eyes_severities, rules.sensitive_categories)
    return embedded(verdict.decision, viewing, thumbnail)
