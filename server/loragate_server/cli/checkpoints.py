"""`loragate-server log`: checkpoints of the decision log, and proofs that a line is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from loragate_server.files import lock

if TYPE_CHECKING:
    from loragate_server.config.schema import Config
    from loragate_server.record.chain import LogProblem
    from loragate_server.record.tree.trust import Trust

DEFAULT_SKEW_S = 60.0

CheckpointOption = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", help="File, folder or URL with checkpoints that were handed out."),
]
KeyOption = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Public key (PEM) of the log. Default: the configured ones."),
]
WitnessOption = Annotated[
    list[str] | None,
    typer.Option(
        "--witness", help="NAME=PEM: one of these has to have signed; the longest, of several."
    ),
]
TreeOption = Annotated[
    Path | None,
    typer.Option("--tree", help="Folder of the tree. Default: the configured one, if it is there."),
]
SkewOption = Annotated[
    float,
    typer.Option("--clock-skew", help="Seconds by which clocks may differ.", min=0.0),
]


def add_to(group: typer.Typer) -> None:
    """Adds the commands of here to `loragate-server log`."""
    for command in (checkpoint, prove, check):
        group.command()(command)


def checkpoint(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints the newest checkpoint of the decision log; makes one where no server runs.

    A server that runs makes them by itself, every checkpoints.interval_s while lines are written.

    [bold]Example[/bold]

      loragate-server log checkpoint > /media/usb/checkpoint
    """
    from loragate_server.app.witnessing import open_keeper

    wanted = load(config, {"state_dir": state_dir})
    if not wanted.checkpoints.enabled:
        fail("checkpoints.enabled is false, so the log has no tree; turn it on.", EXIT_FAILED)
    problems: dict[str, str] = {}
    if not is_written(wanted.decision_log_file):
        with failures():
            keeper = open_keeper(wanted)
            if keeper is not None:
                log = keeper.open_log(wanted.decision_log_file)
                problems = keeper.make()
                log.close()
    for label, message in problems.items():
        typer.echo(f"loragate-server: {label}: {message}", err=True)
    with failures():
        typer.echo(_newest(wanted), nl=False)
    if problems:
        raise typer.Exit(EXIT_FAILED)


def prove(
    decision_id: Annotated[str, typer.Argument(help="Of the decision.", show_default=False)],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Log files. Default: the configured log, with its full files."),
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Prints a proof that a decision is in the log, for those who have neither log nor server.

    It is a file of C2SP's format tlog-proof: the line of the log, its place, and the newest
    checkpoint. `log check` and other programs for that format read it.

    [bold]Example[/bold]

      loragate-server log prove 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f > 0192f3c8.tlog-proof
    """
    from loragate_server.record.rotation import files_of
    from loragate_server.record.tree.checkpoint import parse_checkpoint
    from loragate_server.record.tree.merkle import inclusion_proof
    from loragate_server.record.tree.note import NoteError, parse_note
    from loragate_server.record.tree.proof import LineProof
    from loragate_server.record.tree.tiles import TileError, Tiles
    from loragate_server.record.tree.tree import TreeError, read_state

    wanted = load(config, {"state_dir": state_dir})
    folder = wanted.tree_folder
    with failures():
        found = next(_lines_of(files or files_of(wanted.decision_log_file), decision_id), None)
        if found is None:
            fail(f"the log has no decision {decision_id}", EXIT_FOUND_WRONG)
        try:
            note = parse_note(_newest(wanted))
            state = read_state(folder)
            size = parse_checkpoint(note.text).size
            index = found[0] - (0 if state is None else state.first_seq)
            if index < 0:
                fail(
                    f"line {found[0]} was written before the log had a tree, so it has no proof "
                    "of its own; `loragate-server log verify --checkpoint` shows that it stands",
                    EXIT_FAILED,
                )
            if state is None or index >= size:
                fail(
                    f"line {found[0]} is in no checkpoint yet; a server makes one every "
                    "checkpoints.interval_s, `loragate-server log checkpoint` where none runs",
                    EXIT_FAILED,
                )
            path = inclusion_proof(Tiles(folder, size).subtree, index, size)
        except (TreeError, TileError, NoteError) as error:
            fail(str(error), EXIT_FAILED)
    typer.echo(LineProof(found[1], index, tuple(path), note).text, nl=False)


def check(
    file: Annotated[Path, typer.Argument(help="Made by `log prove`.", show_default=False)],
    keys: KeyOption = None,
    witnesses: WitnessOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Checks a proof that a line is in a log, and prints the line.

    [bold]Example[/bold]

      loragate-server log check 0192f3c8.tlog-proof --key log.pub | jq .verdict.decision.verdict
    """
    from loragate_server.record.tree.merkle import ProofError
    from loragate_server.record.tree.note import NoteError
    from loragate_server.record.tree.proof import parse_proof

    wanted = load(config, {"state_dir": state_dir})
    trust = _trust(wanted, keys or [], witnesses or [])
    try:
        proof = parse_proof(file.read_text(encoding="utf-8"))
        seen = trust.seen(proof.note, file.name)
        proof.require(seen.checkpoint)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_FAILED)
    except (NoteError, ProofError, UnicodeDecodeError) as error:
        fail(f"{file} shows nothing: {error}", EXIT_FOUND_WRONG)
    when = f", seen by a witness at {seen.moment}" if seen.moment else ""
    told = f"line {proof.index} of {seen.checkpoint.size} in {seen.checkpoint.origin}{when}"
    typer.echo(f"loragate-server: {told}", err=True)
    typer.echo(proof.line.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Handed:
    """What a log is held to: the options of `log verify`."""

    places: Sequence[str]
    keys: Sequence[Path]
    witnesses: Sequence[str]
    tree: Path | None
    clock_skew_s: float

    def problems(self, config: Config, files: Sequence[Path]) -> tuple[LogProblem, ...]:
        """What is wrong about a log against checkpoints, or the end of the command."""
        from loragate_server.record.chain import LogProblem
        from loragate_server.record.tree.note import NoteError
        from loragate_server.record.tree.sealed import verify_tree
        from loragate_server.record.tree.tree import TreeError, read_state
        from loragate_server.record.tree.trust import read_notes

        if not self.places:
            return ()
        trust = _trust(config, self.keys, self.witnesses)
        folder = self.tree or config.tree_folder
        with failures():
            try:
                notes = [one for place in self.places for one in read_notes(place)]
                seen = [trust.signed(note, where) for where, note in notes]
            except NoteError as error:
                return (LogProblem(self.places[0], 0, str(error)),)
            try:
                state = read_state(folder)
                known = None if state is None else (folder, state)
                skew = timedelta(seconds=self.clock_skew_s)
                trees = [
                    [one for one in seen if one.checkpoint.origin == origin]
                    for origin in dict.fromkeys(one.checkpoint.origin for one in seen)
                ]
                unseen = (
                    LogProblem(max(one, key=lambda each: each.checkpoint.size).where, 0, told)
                    for one in trees
                    if (told := trust.unwitnessed(one))
                )
                found = (
                    verify_tree(files, one, tree=known, skew=skew, absent=_warn) for one in trees
                )
                return (*unseen, *(problem for problems in found for problem in problems))
            except TreeError as error:
                return (LogProblem(str(folder), 0, str(error)),)


def _newest(wanted: Config) -> str:
    """The newest checkpoint of the configured log, or the end of the command.

    Raises:
        OSError: it is there and cannot be read.
    """
    from loragate_server.record.tree.tree import CHECKPOINT

    file = wanted.tree_folder / CHECKPOINT
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        why = (
            "A server makes the first one checkpoints.interval_s after a line was written"
            if wanted.checkpoints.enabled
            else "checkpoints.enabled is false"
        )
        fail(f"there is no checkpoint at {file}. {why}.", EXIT_FAILED)


def _warn(sentence: str) -> None:
    typer.echo(f"loragate-server: {sentence}", err=True)


def _trust(config: Config, keys: Sequence[Path], witnesses: Sequence[str]) -> Trust:
    """Keys that were named, else those of the configuration."""
    from loragate_server.record.signing.keys import KeyUnusableError
    from loragate_server.record.tree.note import WITNESS_KEY, Verifier
    from loragate_server.record.tree.signer import log_keys, read_note_key
    from loragate_server.record.tree.trust import Trust

    section = config.checkpoints
    named = [(one.name, one.public_key) for one in section.witnesses] if not witnesses else []
    for each in witnesses:
        name, equals, file = each.partition("=")
        if not (name and equals and file):
            fail(f"--witness {each!r} is not NAME=PEM", EXIT_USAGE)
        named.append((name, Path(file)))
    try:
        logs = [read_note_key(file) for file in keys] or log_keys(section, config.signing)
        own = [Verifier(name, read_note_key(file), WITNESS_KEY) for name, file in named]
    except KeyUnusableError as error:
        fail(str(error), EXIT_USAGE)
    if not logs:
        fail("whose signature counts is not known; name the public key with --key", EXIT_USAGE)
    return Trust(logs, own)


def _lines_of(files: Sequence[Path], decision_id: str) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of the lines that hold a decision."""
    wanted = decision_id.encode()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if wanted in line:
                    entry = json.loads(line)
                    if entry.get("verdict", {}).get("decision_id") == decision_id:
                        yield entry["seq"], line.removesuffix(b"\n")


def is_written(log: Path) -> bool:
    """Whether a server has the log open."""
    try:
        with log.open("rb") as file:
            lock(file, shared=True)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
