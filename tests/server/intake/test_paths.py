"""What may lie under a path: every odd shape is refused, and none left open or waited for."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.beside import CONFIG_NAME
from loragate_server.intake.fetch import Intake
from loragate_server.progress import Leash
from testkit.waiting import at_most
from tests.server.intake.conftest import as_nobody, weights

GOOD = weights(0)
LIMIT = IntakeSection().max_metadata_bytes

Shape = Callable[[Path], None]


def a_folder(at: Path) -> None:
    at.mkdir()


def a_pipe(at: Path) -> None:
    os.mkfifo(at)


def a_socket(at: Path) -> None:
    here = Path.cwd()
    os.chdir(at.parent)  # the name of a socket has room for 107 letters only
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(at.name)
    finally:
        os.chdir(here)


def a_device(at: Path) -> None:
    try:
        os.mknod(at, 0o20666, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("making a device needs root")


def a_link(at: Path) -> None:
    target = at.parent.parent / "elsewhere"
    target.write_bytes(b"{}")
    at.symlink_to(target)


def a_dangling_link(at: Path) -> None:
    at.symlink_to("nowhere")


def a_loop(at: Path) -> None:
    at.symlink_to(at.name)


def too_large(at: Path) -> None:
    at.write_bytes(b" " * (LIMIT + 1))


def a_huge_hole(at: Path) -> None:
    with at.open("wb") as file:
        file.truncate(1 << 40)


def not_utf8(at: Path) -> None:
    at.write_bytes(b'{"r": 4, "x": "\xff\xfe"}')


SHAPES: tuple[Shape, ...] = (
    a_folder, a_pipe, a_socket, a_device, a_link, a_dangling_link, a_loop, a_huge_hole,
)  # fmt: skip
NO_CONFIG: tuple[Shape, ...] = (*SHAPES, too_large, not_utf8)


def fetch(intake: Intake, **source: Any) -> StoredFile:
    return intake.fetch(AdapterReference(**source), Leash())


def refused(intake: Intake, **source: Any) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        fetch(intake, **source)
    assert caught.value.remedy
    return caught.value


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def nothing_left_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.mark.parametrize("shape", NO_CONFIG, ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("named", ["by its folder", "by the file"])
def test_a_configuration_that_cannot_be_read_is_never_taken_for_none(
    intake: Intake, root: Path, shape: Shape, named: str, nothing_left_open: None
) -> None:
    (root / "one").mkdir()
    (root / "one" / "w.safetensors").write_bytes(GOOD)
    shape(root / "one" / CONFIG_NAME)
    path = "one" if named == "by its folder" else "one/w.safetensors"
    began = time.monotonic()
    for _ in range(150):
        error = refused(intake, path=path)
        assert error.reason is ErrorReason.ADAPTER_METADATA_INVALID
        assert CONFIG_NAME in error.message
    assert time.monotonic() - began < at_most(10)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@pytest.mark.parametrize(
    "source",
    [
        {"path": "one/w.safetensors"},
        {"path": "one", "weight_name": "w.safetensors"},
        {"path": "one/w.safetensors/inside"},
    ],
    ids=["itself", "in its folder", "as a folder"],
)
def test_weights_of_every_odd_shape_are_refused_and_left_closed(
    intake: Intake, root: Path, shape: Shape, source: dict[str, str], nothing_left_open: None
) -> None:
    (root / "one").mkdir()
    shape(root / "one" / "w.safetensors")
    for _ in range(150):
        assert refused(intake, **source).reason in {
            ErrorReason.PATH_NOT_ALLOWED,
            ErrorReason.SOURCE_NOT_FOUND,
            ErrorReason.FILE_TOO_LARGE,
        }


def test_a_pipe_somebody_writes_to_is_refused_as_well(
    intake: Intake, root: Path, nothing_left_open: None
) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    pipe = root / CONFIG_NAME
    os.mkfifo(pipe)
    ends = os.open(pipe, os.O_RDWR)
    try:
        os.write(ends, b"{}")
        assert "a named pipe" in refused(intake, path="w.safetensors").message
    finally:
        os.close(ends)


@pytest.mark.parametrize("closed", ["w.safetensors", CONFIG_NAME])
def test_what_the_server_may_not_read_is_said_to_be_so(closed: str) -> None:
    top = Path(tempfile.mkdtemp())
    try:
        top.chmod(0o755)
        (top / "w.safetensors").write_bytes(GOOD)
        (top / CONFIG_NAME).write_text("{}")
        (top / closed).chmod(0)
        (top / "store").mkdir(mode=0o777)
        (top / "store").chmod(0o777)
        with as_nobody():
            intake = Intake(IntakeSection(roots=(top,)), top / "store")
            error = refused(intake, path="w.safetensors")
    finally:
        shutil.rmtree(top)
    assert "may not be read by the server" in error.message
    assert error.reason in {ErrorReason.PATH_NOT_ALLOWED, ErrorReason.ADAPTER_METADATA_INVALID}


@pytest.mark.parametrize(
    "source",
    [
        {"path": "a\0b"},
        {"path": "w.safetensors\0"},
        {"path": ".", "weight_name": "w\0.safetensors"},
        {"path": ".", "weight_name": ".."},
        {"path": ".", "weight_name": "sub/w.safetensors"},
        {"path": "\ud800.safetensors"},
        {"path": ".", "weight_name": "\udc80"},
        {"path": "n" * 300},
        {"path": ("d/" * 3000) + "w.safetensors"},
        {"path": "/" + "n" * 5000},
        {"path": ".."},
        {"path": "w.safetensors/../w.safetensors"},
    ],
)
def test_a_name_that_no_file_has_is_refused(
    intake: Intake, root: Path, source: dict[str, str], nothing_left_open: None
) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    error = refused(intake, **source)
    assert error.reason in {ErrorReason.PATH_NOT_ALLOWED, ErrorReason.SOURCE_NOT_FOUND}
    str(error).encode()
    "".join(error.metadata.values()).encode()


@pytest.mark.parametrize("named", ["by its folder", "by the file", "from the top"])
def test_the_configuration_is_found_however_the_weights_are_named(
    intake: Intake, root: Path, named: str
) -> None:
    folder = root / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "w.safetensors").write_bytes(GOOD)
    assert fetch(intake, path="a/b/w.safetensors").config_json is None
    (folder / CONFIG_NAME).write_text('{"r": 4}')
    path = {"by its folder": "a/b", "by the file": "a/b/w.safetensors"}.get(named, str(folder))
    assert fetch(intake, path=path).config_json == '{"r": 4}'


def test_the_root_itself_is_a_folder_like_any_other(intake: Intake, root: Path) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    (root / CONFIG_NAME).write_text("{}")
    for path in (str(root), ".", "", "w.safetensors"):
        assert fetch(intake, path=path).config_json == "{}"


def test_a_root_may_be_a_link_and_nothing_below_it(tmp_path: Path, root: Path) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    (root / "inner").symlink_to(root)
    link = tmp_path / "link"
    link.symlink_to(root)
    intake = Intake(IntakeSection(roots=(link,)), tmp_path / "store")
    for path in ("w.safetensors", str(link / "w.safetensors"), str(root / "w.safetensors")):
        assert fetch(intake, path=path).size_bytes == len(GOOD)
    error = refused(intake, path="inner/w.safetensors")
    assert error.reason is ErrorReason.PATH_NOT_ALLOWED


@pytest.mark.parametrize("shape", [None, a_pipe, a_loop, Path.touch])
def test_a_root_that_is_missing_or_no_folder_is_named(
    tmp_path: Path, shape: Shape | None, nothing_left_open: None
) -> None:
    if shape is not None:
        shape(tmp_path / "gone")
    intake = Intake(IntakeSection(roots=(tmp_path / "gone",)), tmp_path / "store")
    for path in ("w.safetensors", str(tmp_path / "gone" / "w.safetensors")):
        error = refused(intake, path=path)
        assert error.reason is ErrorReason.SOURCE_NOT_FOUND
        assert "intake.roots" in error.remedy
        assert "gone" in error.message


def test_a_missing_root_does_not_hide_what_lies_in_another(tmp_path: Path, root: Path) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    roots = (tmp_path / "gone", root)
    intake = Intake(IntakeSection(roots=roots), tmp_path / "store")
    assert fetch(intake, path="w.safetensors").size_bytes == len(GOOD)
    assert refused(intake, path="x.safetensors").reason is ErrorReason.SOURCE_NOT_FOUND


def test_a_root_that_goes_and_comes_while_files_are_read_leaves_nothing_open(
    intake: Intake, root: Path, nothing_left_open: None
) -> None:
    end = threading.Event()

    def shake() -> None:
        while not end.is_set():
            (root / "one").mkdir()
            (root / "one" / "w.safetensors").write_bytes(GOOD)
            (root / "one" / CONFIG_NAME).write_text("{}")
            root.rename(root.with_name("away"))
            root.with_name("away").rename(root)
            shutil.rmtree(root / "one")

    shaking = threading.Thread(target=shake)
    shaking.start()
    reasons = set()
    try:
        for _ in range(400):
            try:
                fetch(intake, path="one")
            except NoDecisionError as error:
                reasons.add(error.reason)
    finally:
        end.set()
        shaking.join()
    assert reasons <= {
        ErrorReason.SOURCE_NOT_FOUND,
        ErrorReason.ADAPTER_METADATA_INVALID,
        ErrorReason.FILE_EMPTY,
        ErrorReason.FILE_TRUNCATED,
    }


def _first_refusal(intake: Intake) -> NoDecisionError:
    """A look that falls between two writes sees a file that stands still."""
    for _ in range(500):
        try:
            intake.fetch(AdapterReference(path="w.safetensors"), Leash())
        except NoDecisionError as error:
            return error
    raise AssertionError("nobody saw that it grows")


def test_a_configuration_that_grows_for_ever_is_given_up(intake: Intake, root: Path) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    config = root / CONFIG_NAME
    config.touch()
    end = threading.Event()

    def grow() -> None:
        with config.open("ab", buffering=0) as file:
            while not end.is_set() and file.tell() < 64 << 20:
                file.write(b" " * 4096)

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        while config.stat().st_size < 4096:
            time.sleep(0.001)
        error = _first_refusal(intake)
    finally:
        end.set()
        growing.join()
    assert error.reason is ErrorReason.ADAPTER_METADATA_INVALID


def test_no_descriptor_left_is_a_trouble_of_the_machine_and_no_fault_of_the_file(
    intake: Intake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    really = os.open

    def full(name: str, *args: int, **options: int) -> int:
        if name in ("w.safetensors", CONFIG_NAME):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(name, *args, **options)

    monkeypatch.setattr(os, "open", full)
    error = refused(intake, path="w.safetensors")
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert error.retry_after_s


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EILSEQ], ids=errno.errorcode.get)
def test_a_name_that_a_file_system_cannot_hold_is_no_trouble_of_the_machine(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As file systems of Windows and of other encodings say of some letters."""
    really = os.open

    def strict(name: str, *args: int, **options: int) -> int:
        if name == "a?b.safetensors":
            raise OSError(number, os.strerror(number))
        return really(name, *args, **options)

    monkeypatch.setattr(os, "open", strict)
    error = refused(intake, path="a?b.safetensors")
    assert error.reason is ErrorReason.PATH_NOT_ALLOWED
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    "beside",
    [
        "other.safetensors",
        "adapter_model.bin",
        "pytorch_lora_weights.bin",
        "old.pt",
        "OLD.CKPT",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    ],
)
def test_a_folder_in_which_loaders_would_choose_differently_has_to_be_asked_about_by_name(
    intake: Intake, root: Path, beside: str
) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    (root / beside).write_bytes(b"x")
    error = refused(intake, path=str(root))
    assert error.reason is ErrorReason.SOURCE_NOT_FOUND
    assert "weight_name" in error.remedy
    stored = fetch(intake, path=str(root), weight_name="w.safetensors")
    assert stored.path.read_bytes() == GOOD


@pytest.mark.parametrize(
    "beside",
    ["optimizer.bin", "training_args.bin", "random_states_0.pkl", "rng_state.pth", "README.md"],
)
def test_what_a_trainer_leaves_beside_the_weights_is_no_choice(
    intake: Intake, root: Path, beside: str
) -> None:
    (root / "w.safetensors").write_bytes(GOOD)
    (root / beside).write_bytes(b"x")
    assert fetch(intake, path=str(root)).path.read_bytes() == GOOD
