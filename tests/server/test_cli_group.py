"""What holds for every subcommand: empty arguments, help, and how early a refusal comes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.cli.group import filled

Words = tuple[str, ...]


def commands(group: Any, before: Words = ()) -> Iterator[tuple[Words, Any]]:
    """Every subcommand that does something, with the words that name it."""
    below = getattr(group, "commands", None)
    if below is None:
        yield before, group
    for name, one in (below or {}).items():
        yield from commands(one, (*before, name))


EVERY = tuple(commands(typer.main.get_command(application)))


def named_places() -> Iterator[tuple[Words, Words]]:
    """Each command, and the arguments of one that give it nothing for a path."""
    for words, command in EVERY:
        hints = get_type_hints(command.callback.__wrapped__, include_extras=False)
        for tested in command.params:
            if Path not in (hints.get(tested.name), *get_args(hints.get(tested.name))):
                continue
            arguments: list[str] = []
            for one in command.params:
                value = "" if one is tested else "x"
                if one.param_type_name == "argument" and (one.required or one is tested):
                    arguments.append(value)
                elif one.required or one is tested:
                    arguments += [one.opts[0], value]
            yield words, tuple(arguments)


@pytest.mark.parametrize(("words", "arguments"), tuple(named_places()))
def test_an_empty_path_is_not_the_present_folder(
    words: Words, arguments: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(application, [*words, *arguments])
    assert refused.exit_code == 2, refused.output
    assert "is empty; give it a value, or leave it out" in " ".join(
        refused.output.replace("│", " ").split()
    )
    assert not list(tmp_path.iterdir())


def test_an_empty_source_or_id_is_refused_and_an_option_that_may_be_empty_is_not() -> None:
    for arguments in (["catalogue", "scan", ""], ["report", ""], ["concepts", "remove", ""]):
        refused = CliRunner().invoke(application, arguments)
        assert (refused.exit_code, "is empty" in refused.output) == (2, True)
    allowed = CliRunner().invoke(application, ["calibrate", "gone", "--base-model", ""])
    assert "gone is no folder" in allowed.output


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_a_paragraph_of_help_is_broken_by_the_terminal_alone(words: Words, command: Any) -> None:
    blocks = command.help.split("\n\n")
    assert not [block for block in blocks if "\n" in block and "\n " not in f"\n{block}"], words


def test_what_is_indented_stays_as_it_is() -> None:
    assert filled("One\ntwo.\n\nList:\n  a\n  b\n\n  c\n  d") == (
        "One two.\n\nList:\n  a\n  b\n\n  c\n  d"
    )


EARLY = [
    (("calibrate", "{folder}"), "holds no .safetensors file"),
    (("calibrate", "--train", "20", "--nouns", "gone"), "gone: No such file"),
    (("calibrate", "--train", "20", "--prompt", "a cat"), "has to hold {} once"),
    (("calibrate", "--train", "20", "--subjects", "gone"), "gone is no folder"),
    (("calibrate", "--train", "20", "--base-model", "gone"), "no base model 'gone'"),
    (("calibrate", "--train", "20", "--learned", "{file}"), "names no adapter"),
    (("evaluate", "--out", "{file}"), "is a file; name a folder"),
    (("evaluate", "--out", "{file}/out"), "cannot be written"),
    (("evaluate", "--pictures", "{folder}"), "holds no pictures"),
    (("catalogue", "scan", "{loras}", "--base-model", "gone"), "no base model 'gone'"),
    (("catalogue", "scan", "{loras}", "--out", "{file}"), "cannot be written"),
    (("catalogue", "scan", "{loras}", "--address", "{taken}9"), "no Ray cluster answers there"),
    (("serve", "--grpc", "{taken}", "--http", "127.0.0.1:0"), "another process listens there"),
    (("serve", "--grpc", "127.0.0.1:0", "--state-dir", "/proc/gone"), "cannot be written"),
]


@pytest.mark.parametrize(("arguments", "told"), EARLY)
def test_what_shows_without_a_model_is_refused_before_torch_is_loaded(
    arguments: Words, told: str, tmp_path: Path
) -> None:
    places = {name: str(tmp_path / name) for name in ("folder", "file", "loras")}
    for name in ("folder", "loras"):
        (tmp_path / name).mkdir()
    (tmp_path / "loras" / "one.safetensors").touch()
    (tmp_path / "file").touch()
    script = (
        "import sys; from typer.testing import CliRunner\n"
        "from loragate_server.cli.command import application\n"
        "done = CliRunner().invoke(application, sys.argv[1:]); print(done.output)\n"
        "sys.exit(10 if 'torch' in sys.modules else done.exit_code)"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # one digit more is a port that nobody has: too high a number
        places["taken"] = f"127.0.0.1:{listener.getsockname()[1]}"
        words = [one.format(**places) if "{" in one and one != "a {}" else one for one in arguments]
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env={"PATH": "/usr/bin", "LORAGATE_STATE_DIR": str(tmp_path / "state")}
            | {"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert told in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert done.returncode in (1, 2, 3)
