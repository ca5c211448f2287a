"""`loragate-server concepts bank`: drawn by the base itself; and pictures from addresses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image
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
    drawn = ("--draw-steps", "2", "--pictures", "2", "--nouns", nouns)
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
    # the name of before is understood still
    assert make(other, 1, "--state-dir", tmp_path / "elsewhere", "--steps", "2").exit_code == 0
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
    for number, name in enumerate(("red_teapot", "Chair", "the-ninja"), 4):
        (tmp_path / "things" / name).mkdir(parents=True)
        shutil.copy(PICTURES[number], tmp_path / "things" / name)
    shutil.copy(PICTURES[3], tmp_path / "things" / "lamp.PNG")
    assert run("add", "ninja", PICTURES[0], "--library", library).exit_code == 0
    (tmp_path / "things" / "ninja").mkdir()
    shutil.copy(PICTURES[1], tmp_path / "things" / "ninja")
    taken = run("bank", "--from", tmp_path / "things", "--library", library)
    assert taken.exit_code == 0, taken.stderr
    assert "left out, as the library has or forbids them: ninja" in taken.stderr
    assert "1 loose picture was taken as one concept each: lamp. Pictures" in taken.stderr
    names = {one.name for one in ConceptLibrary.read(library).neutral}
    assert names == {"red teapot", "chair", "the ninja", "lamp"}


def test_a_picture_that_is_a_reference_already_is_never_neutral(
    library: Path, tmp_path: Path
) -> None:
    assert run("add", "mascot", PICTURES[0], "--library", library).exit_code == 0
    for name in ("cup", "bowl", "plate"):
        (tmp_path / "things" / name).mkdir(parents=True)
    shutil.copy(PICTURES[0], tmp_path / "things" / "cup" / "0.png")
    Image.open(PICTURES[0]).save(tmp_path / "things" / "cup" / "1.webp", lossless=True)
    shutil.copy(PICTURES[1], tmp_path / "things" / "cup" / "2.png")
    shutil.copy(PICTURES[0], tmp_path / "things" / "bowl" / "0.png")
    shutil.copy(PICTURES[1], tmp_path / "things" / "plate" / "0.png")
    taken = run("bank", "--from", tmp_path / "things", "--library", library)
    assert taken.exit_code == 0, taken.stderr
    told = " ".join(taken.stderr.split())
    for left, owner in (
        ("cup/0.png", "mascot"),
        ("cup/1.webp", "mascot"),
        ("bowl/0.png", "mascot"),
    ):
        assert f"left out {tmp_path}/things/{left}, which is a picture of {owner} already" in told
    [neutral] = ConceptLibrary.read(library).neutral
    assert len(neutral.picture_files) == 1


def test_a_bank_that_has_changed_is_said_to_need_new_calibrations(tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    shutil.copy(PICTURES[0], tmp_path / "things" / "lamp.png")
    (tmp_path / "things" / "shade.tiff").touch()
    own = tmp_path / "own"
    assert run("init", own).exit_code == 0
    assert run("add", "mascot", PICTURES[0], "--library", own).exit_code == 0
    none = run("bank", "--from", tmp_path / "things", "--library", own)
    assert "0 neutral concepts more" in none.stdout
    assert "calibrate" not in none.stderr
    assert f"as they are no PNG, JPEG or WebP files: {tmp_path}/things/shade.tiff" in none.stderr
    assert run("remove", "mascot", "--library", own).exit_code == 0
    assert run("add", "mascot", PICTURES[1], "--library", own).exit_code == 0
    Image.new("RGB", (32, 32), "teal").save(tmp_path / "things" / "lamp.png")
    more = run("bank", "--from", tmp_path / "things", "--library", own)
    assert "1 neutral concepts more" in more.stdout, more.stderr
    assert "a calibration does not follow another neutral bank" in more.stderr
    assert "`loragate-server calibrate --again FILE`" in more.stderr


def test_a_picture_that_tells_nothing_new_is_told_by_its_file(
    library: Path, tmp_path: Path
) -> None:
    for hand in ("comic", "film"):
        (tmp_path / "mascot" / hand).mkdir(parents=True)
        shutil.copy(PICTURES[0], tmp_path / "mascot" / hand / "a.png")
    shutil.copy(PICTURES[1], tmp_path / "mascot" / "film" / "b.png")
    for name in (".DS_Store", "about.txt", "c.heic", "d.GIF"):
        (tmp_path / "mascot" / "film" / name).touch()
    assert (
        run("add", "plain", PICTURES[1], "--role", "neutral", "--library", library).exit_code == 0
    )
    added = run("add", "mascot", tmp_path / "mascot", "--library", library)
    assert added.exit_code == 0, added.stderr
    assert (
        f"left out {tmp_path}/mascot/film/a.png, the same picture as {tmp_path}/mascot/comic/a.png"
        in added.stderr
    )
    assert f"{tmp_path}/mascot/film/b.png is a picture of the concept plain too" in added.stderr
    others = f"{tmp_path}/mascot/film/c.heic, {tmp_path}/mascot/film/d.GIF\n"
    assert f"note: passed over, as they are no PNG, JPEG or WebP files: {others}" in added.stderr
    found = ConceptLibrary.read(library).get("mascot")
    assert (len(found.picture_files), found.hands) == (2, ("comic", "film"))


def test_a_picture_that_cannot_be_used_is_named_by_its_file(library: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "things" / "cup").mkdir(parents=True)
    shutil.copy(PICTURES[0], folder / "0.png")
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    for words in (("add", "mascot", folder), ("bank", "--from", tmp_path / "things")):
        refused = run(*words, "--library", library)
        assert refused.exit_code == 3
        assert f"Picture {folder}/1.png is 8x8 pixels" in refused.stderr


def test_a_concept_that_is_there_or_goes_is_told_in_words_of_the_command(library: Path) -> None:
    assert run("add", "mascot", PICTURES[0], "--library", library).exit_code == 0
    again = run("add", "mascot", PICTURES[1], "--library", library)
    assert "or remove the old concept first (`concepts remove`)" in again.stderr
    gone = run("remove", "mascot", "--library", library)
    assert "lacks 1 forbidden and 8 neutral concepts before" in gone.stderr
    other = run("add", "other", PICTURES[0])
    assert "the new concept is uncalibrated" in other.stderr
    removed = run("remove", "other")
    assert "the new concept" not in removed.stderr
    assert "servers fit their calibration to what is left" in removed.stderr


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
