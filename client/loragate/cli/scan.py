"""`loragate scan`: decides about files without a service, by an engine of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loragate.cli import reports, scan_settings
from loragate.cli.adapter_files import FoundFile
from loragate.cli.engine import Engine, engine
from loragate.cli.engine_config import EngineSettings, make_state
from loragate.cli.exit_code import ExitCode
from loragate.cli.fingerprint import fingerprint
from loragate.cli.gating import (
    STARTING,
    LiveLine,
    explain,
    note,
    outcomes_of,
    print_rows,
    require_writable,
    with_progress,
)
from loragate.cli.kept import KeptAnswers
from loragate.cli.outcome import Outcome
from loragate.cli.output import took_s
from loragate.cli.scan_engine import engine_settings
from loragate.cli.scan_paths import Choice, Gathered, gather
from loragate.cli.table import printable
from loragate.client import AuditClient
from loragate.reference import AuditOptions

TIMEOUT_S = 600.0
"""For one answer. Nobody else asks the engine, so a long wait is a large model at work."""

_TERMINATED = 143


def scan(options: argparse.Namespace) -> ExitCode:
    """Audits the files, writes the report; the worst outcome is the exit code.

    Raises:
        EngineError: the engine is not installed or does not start.
        OSError, ValueError: what was asked for cannot be; nothing was audited.
    """
    used = scan_settings.apply(options, Path.cwd())
    form = options.format or "table"
    require_writable("output", options.output)
    reports.require(form)
    gathered = gather(options.paths, _choice(options))
    if not gathered.files and not options.allow_empty:
        raise FileNotFoundError(_nothing(options.paths, gathered))
    settings = engine_settings(options, gathered.files)
    if options.verbose:
        _tell_before(used.file if used is not None else None, settings, gathered)
    elif used is not None and used.decisive:  # with --quiet too: who is strict may be a stranger
        _say(f"{used.file} sets {', '.join(used.decisive)}; --no-settings reads no such file.")
    outcomes = _outcomes(options, settings, gathered.files)
    _show(options, form, outcomes)
    return _exit_code(outcomes, options.fail_on or "review")


def _choice(options: argparse.Namespace) -> Choice:
    return Choice(
        tuple(options.include or ()), tuple(options.exclude or ()), bool(options.follow_symlinks)
    )


def _nothing(places: Sequence[str], gathered: Gathered) -> str:
    passed = len(gathered.passed_over)
    why = f" --include and --exclude leave out all {passed} files." if passed else ""
    return f"There is no adapter in {', '.join(places)}.{why} --allow-empty accepts it."


def _asked(options: argparse.Namespace) -> AuditOptions:
    return {
        "loader": options.loader or "",
        "strength": options.strength,
        "text_encoder_strength": options.text_encoder_strength,
    }


def _outcomes(
    options: argparse.Namespace, settings: EngineSettings, files: Sequence[FoundFile]
) -> list[Outcome]:
    """What became of each file; the engine is started only if one of them has to be audited."""
    asked, line = _asked(options), LiveLine(quiet=options.quiet)
    mark = None if options.fresh else _fingerprint(settings)
    known = _known(settings, mark, files, asked) if mark is not None else {}
    left = [found for found in files if found not in known]
    if all(found.refusal is not None for found in left):
        with AuditClient("unix:/nobody-is-asked") as client:
            fresh = list(with_progress(outcomes_of(client, left, asked, 1), len(left), line))
    else:
        settings = settings.at(make_state(settings.state))
        fresh = _by_engine(options, settings, left, line, mark or _fingerprint(settings))
    made = iter(fresh)
    return [known.get(found) or next(made) for found in files]


def _fingerprint(settings: EngineSettings) -> str | None:
    """None where something cannot be looked at: then nothing is kept, and the engine says why."""
    try:
        return fingerprint(settings.at(settings.state.absolute()))
    except OSError:
        return None


def _known(
    settings: EngineSettings, mark: str, files: Sequence[FoundFile], asked: AuditOptions
) -> dict[FoundFile, Outcome]:
    """The files about which earlier scans had an answer that still counts."""
    if not settings.state.is_dir():
        return {}
    kept, known = KeptAnswers.read(make_state(settings.state), mark), {}
    for found in files:
        began = time.monotonic()
        result = kept.answer(found, asked)
        if result is not None:
            known[found] = Outcome(found, result, None, time.monotonic() - began)
    return known


def _by_engine(
    options: argparse.Namespace,
    settings: EngineSettings,
    files: Sequence[FoundFile],
    line: LiveLine,
    mark: str | None,
) -> list[Outcome]:
    """Asks an engine about the files, and keeps what it answered."""
    asked, timeout_s = _asked(options), options.timeout or TIMEOUT_S
    line.announce(STARTING)
    with _ending_in_order(), engine(settings, line.show) as running:
        line.clear()
        _tell_of(running, options)
        with AuditClient(
            running.target, timeout=timeout_s, on_unavailable="raise", service="loragate-scan"
        ) as client:
            made = outcomes_of(client, files, asked, 1)
            if mark is not None:
                kept = KeptAnswers.read(settings.state, mark)
                made = _kept(made, kept, asked, lambda: _fingerprint(settings) == mark)
            outcomes = list(with_progress(made, len(files), line))
        if running.has_ended:
            print(f"loragate: the engine ended by itself; its log: {running.log}", file=sys.stderr)
        return outcomes


def _kept(
    made: Iterator[Outcome],
    kept: KeptAnswers,
    asked: AuditOptions,
    is_unchanged: Callable[[], bool],
) -> Iterator[Outcome]:
    """Passes outcomes on, and keeps them once all are there: no other scan has the folder now.

    Where an answer was lost on the way, the record may know more than is kept; where policy or
    model changed meanwhile, nobody knows which of them an answer is from. Then all is asked anew
    the next time.
    """
    kept.begin()
    beside, is_complete = kept.beside, True  # before the first is asked about, and so on
    for outcome in made:
        is_complete = is_complete and (outcome.result is not None or outcome.is_refused)
        kept.keep(outcome, asked, beside)
        beside = kept.beside
        yield outcome
    if is_complete and is_unchanged():
        kept.end()


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Lets SIGINT and SIGTERM end this process as an error does, which takes the engine along.

    Whatever the exception became on its way, and be it lost in a callback, the end is theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[int] = []

    def end(number: int, _: object) -> None:
        told.append(number)
        raise _ended_by(number)

    heard = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, end) for one in heard if not _is_ignored(one)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if told:
            raise _ended_by(told[0])


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _ended_by(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(_TERMINATED)


def _tell_before(used: Path | None, settings: EngineSettings, gathered: Gathered) -> None:
    _say(f"settings: {used or 'none'}")
    for name in ("base", "library", "policy", "calibration"):
        _say(f"{name}: {getattr(settings, name) or 'the one that ships'}")
    _say(f"record: {settings.state}")
    for name in gathered.passed_over:
        _say(f"passed over: {name}")


def _tell_of(running: Engine, options: argparse.Namespace) -> None:
    if options.verbose:
        _say(f"the engine took {took_s(running.started_s)} to start; its log: {running.log}")
    if not options.quiet:
        for warning in running.warnings():
            _say(f"warning: {warning}")


def _show(options: argparse.Namespace, form: str, outcomes: Sequence[Outcome]) -> None:
    """Writes the report, and says to people what came of it."""
    explain(outcomes)
    if options.output:
        Path(options.output).write_text(reports.report(form, outcomes), encoding="utf-8")
    elif form != "table":
        sys.stdout.write(reports.report(form, outcomes))
    for_people = form == "table" or options.output
    if options.quiet:
        return
    if for_people:
        print_rows(outcomes, sys.stdout)
    if options.verbose:
        for outcome in outcomes:
            _say(f"{outcome.found.name}: {outcome.message}")
    note(outcomes)
    kept = sum(outcome.result is not None and outcome.result.cached for outcome in outcomes)
    _say(reports.summary(outcomes) + (f" ({kept} as in an earlier scan)" if kept else ""))


def _say(text: str) -> None:
    print(printable(f"loragate: {text}"), file=sys.stderr)


def _exit_code(outcomes: Sequence[Outcome], fail_on: str) -> ExitCode:
    """The gravest; a file without a decision is never passed over."""
    codes = [outcome.code for outcome in outcomes]
    if fail_on == "block":
        codes = [ExitCode.ALLOW if code is ExitCode.REVIEW else code for code in codes]
    return ExitCode.worst(codes)
