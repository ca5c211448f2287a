"""`loragate-server concepts bank`: drawn by the base itself; and pictures from addresses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner, Result

from loragate_server.cli.command import application
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.config.sources import ignored_environment

WORDS = ("lemon", "tomato", "pig face", "cookie", "octopus", "mushroom")
PICTURES = sorted(EMBEDDED_LIBRARY.rglob("*.png"))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ignored_environment(), "LORAGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LORAGATE_THREADS", "1")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    assert run("init", folder, "--no-bank").exit_code == 0
    (tmp_path / "nouns.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(application, ["concepts", *map(str, arguments)])


def make(library: Path, count: int, *more: str | Path) -> Result:
    nouns = library.parent / "nouns.txt"
    drawn = ("--steps", "2", "--pictures", "2", "--nouns", nouns)
    return run("bank", "--make", str(count), "--library", library, *drawn, *more)


def test_the_base_model_draws_its_own_bank_and_goes_on_where_it_stopped(library: Path) -> None:
    made = make(library, 2)
    assert made.exit_code == 0, made.stderr
    assert "2 neutral concepts more, 2 in all" in made.stdout
    drawn = library.parent / "state" / "trials" / "drawn"
    first = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.png")}
    assert len(first) == 4
    again = make(library, 4)
    assert "2 neutral concepts more, 4 in all" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in first} == first
    found = ConceptLibrary.read(library)
    assert {one.name for one in found.neutral} == set(WORDS[:4])
    for one in found.neutral:
        assert one.hands == ("a-photo-of", "a-drawing-of")
        assert one.prompts == (f"a picture of {one.name}",)
        assert len(set(one.picture_sha256)) == 2
    assert "0 neutral concepts more" in make(library, 3).stdout


def test_the_same_bank_is_drawn_again_bit_by_bit(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run("init", other, "--no-bank").exit_code == 0
    assert make(library, 1).exit_code == 0
    assert make(other, 1, "--state-dir", tmp_path / "elsewhere").exit_code == 0
    assert ConceptLibrary.read(library).digest == ConceptLibrary.read(other).digest


def test_what_is_forbidden_is_not_drawn_as_neutral(library: Path) -> None:
    added = run("add", "fresh-lemon", PICTURES[0], "--library", library)
    assert added.exit_code == 0, added.stderr
    assert make(library, 1).exit_code == 0
    assert [one.name for one in ConceptLibrary.read(library).neutral] == ["tomato"]
    alike = run("add", "the-tomato", PICTURES[1], "--library", library)
    assert "the-tomato is named like the neutral tomato" in alike.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "give --make or --from"),
        (("--make", "3", "--from", "."), 2, "not both"),
        (("--make", "9", "--nouns", "nouns.txt"), 1, "9 more nouns are needed and 6 are free"),
        (("--make", "1", "--prompt", "a cat"), 1, "'a cat' has to hold {} once"),
        (("--make", "1", "--nouns", "gone.txt"), 3, "gone.txt: No such file"),
        (("--make", "1", "--base-model", "x"), 3, "no base model 'x' is configured"),
        (("--from", "gone"), 1, "gone is no folder"),
        (("--from", "empty"), 1, "holds no pictures"),
    ],
)
def test_what_makes_no_bank_is_told_with_what_to_do(
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(library.parent)
    (library.parent / "empty").mkdir()
    refused = run("bank", "--library", library, *arguments)
    assert (refused.exit_code, told in refused.stderr) == (code, True), refused.stderr
    assert ConceptLibrary.read(library).concepts == ()


def test_a_bank_is_taken_from_folders_of_pictures(library: Path, tmp_path: Path) -> None:
    for name in ("red_teapot", "Chair", "the-ninja"):
        (tmp_path / "things" / name).mkdir(parents=True)
        shutil.copy(PICTURES[2], tmp_path / "things" / name)
    shutil.copy(PICTURES[3], tmp_path / "things" / "lamp.PNG")
    assert run("add", "ninja", PICTURES[0], "--library", library).exit_code == 0
    (tmp_path / "things" / "ninja").mkdir()
    shutil.copy(PICTURES[1], tmp_path / "things" / "ninja")
    taken = run("bank", "--from", tmp_path / "things", "--library", library)
    assert taken.exit_code == 0, taken.stderr
    assert "left out, as the library has or forbids them: ninja" in taken.stderr
    names = {one.name for one in ConceptLibrary.read(library).neutral}
    assert names == {"red teapot", "chair", "the ninja", "lamp"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    shutil.copy(PICTURES[0], tmp_path / "web" / "a.png")
    (tmp_path / "web" / "large.png").write_bytes(bytes(4 << 20))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_pictures_come_from_addresses_that_are_allowed_alone(
    library: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("add", "our-mascot", "--library", library, f"{web}/a.png")
    closed = run(*words)
    assert closed.exit_code == 3
    assert "intake.enabled_schemes" in closed.stderr
    monkeypatch.setenv("LORAGATE_INTAKE__ENABLED_SCHEMES", '["http"]')
    inside = run(*words)
    assert inside.exit_code == 3
    assert "intake.reachable_networks" in inside.stderr
    monkeypatch.setenv("LORAGATE_INTAKE__REACHABLE_NETWORKS", '["127.0.0.1/32"]')
    large = run("add", "large", "--library", library, f"{web}/large.png")
    assert (large.exit_code, "more than 3145728 bytes" in large.stderr) == (3, True)
    beside = run(*words, PICTURES[0].parent)
    assert "is an address beside folders" in beside.stderr
    added = run(*words, PICTURES[1])
    assert added.exit_code == 0, added.stderr
    assert len(ConceptLibrary.read(library).get("our-mascot").picture_files) == 2
