"""The store hands out what was audited, whatever is done to its files, and loses no upload."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake import store as store_module
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.intake.store import ContentStore, read_stored
from loragate_server.progress import Leash
from testkit.tiny_models import shared_base
from tests.server.intake.conftest import weights

GOOD, OTHER = weights(0), weights(1)
SHA256 = hashlib.sha256(GOOD).hexdigest()

Harm = Callable[[Path], None]


def send(intake: Intake, data: bytes = GOOD) -> StoredFile:
    return intake.fetch(AdapterReference(inline_bytes=data), Leash())


def ask(intake: Intake, sha256: str = SHA256) -> StoredFile:
    return intake.fetch(AdapterReference(stored_sha256=sha256), Leash())


def gone(intake: Intake) -> None:
    with pytest.raises(NoDecisionError) as caught:
        ask(intake)
    assert caught.value.reason is ErrorReason.ADAPTER_NOT_STORED


def settle() -> None:
    """Until a change can be told from the ones before."""
    time.sleep(store_module._SETTLED_NS / 1e9 + 0.02)


def counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[int]:
    """Grows with every call of a function, which does what it always does."""
    calls: list[int] = []
    really = getattr(module, name)

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return really(*args, **options)

    monkeypatch.setattr(module, name, counting)
    return calls


def other_bytes(at: Path) -> None:
    at.unlink()
    at.write_bytes(OTHER)


def other_bytes_in_place(at: Path) -> None:
    status = at.stat()
    at.chmod(0o644)
    with at.open("r+b") as file:
        file.write(OTHER)
    os.utime(at, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had been done


def cut_short(at: Path) -> None:
    os.truncate(at, len(GOOD) - 1)


def emptied(at: Path) -> None:
    os.truncate(at, 0)


def longer(at: Path) -> None:
    at.chmod(0o644)
    with at.open("ab") as file:
        file.write(b"x")


def a_pipe(at: Path) -> None:
    at.unlink()
    os.mkfifo(at)


def a_link(at: Path) -> None:
    true = at.parent / "true"
    at.rename(true)
    at.symlink_to(true)


def a_folder(at: Path) -> None:
    at.unlink()
    (at / "inner").mkdir(parents=True)


HARMS: tuple[Harm, ...] = (
    other_bytes, other_bytes_in_place, cut_short, emptied, longer, a_pipe, a_link, a_folder,
)  # fmt: skip
every_harm = pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)


@every_harm
@pytest.mark.parametrize("known", ["at once", "long after it was read", "after a restart"])
def test_changed_bytes_are_asked_for_again_and_then_replaced(
    intake: Intake, corrupt: list[int], harm: Harm, known: str
) -> None:
    path = send(intake).path
    if known != "at once":
        settle()
        assert ask(intake).path == path
    if known == "after a restart":
        intake = Intake(intake.settings, intake.store_dir, lambda: corrupt.append(1))
    harm(path)
    gone(intake)
    assert not os.path.lexists(path)
    assert len(corrupt) == 1
    assert send(intake).path.read_bytes() == GOOD
    assert ask(intake).path.read_bytes() == GOOD
    assert len(corrupt) == 1


@every_harm
@pytest.mark.parametrize("way", ["inline", "upload", "path"])
def test_the_right_bytes_take_the_place_of_wrong_ones(
    intake: Intake, root: Path, harm: Harm, way: str
) -> None:
    path = send(intake).path
    harm(path)
    if way == "inline":
        again = send(intake)
    elif way == "upload":
        sink = intake.receive(len(GOOD), SHA256, "a.safetensors")
        sink.write(GOOD)
        again = sink.finish()
    else:
        (root / "w.safetensors").write_bytes(GOOD)
        again = intake.fetch(AdapterReference(path="w.safetensors"), Leash())
    assert again.path == path
    assert path.read_bytes() == read_stored(again) == GOOD


@every_harm
def test_what_is_read_for_an_audit_is_what_was_taken_in(intake: Intake, harm: Harm) -> None:
    stored = send(intake)
    assert read_stored(stored) == GOOD
    harm(stored.path)
    with pytest.raises(NoDecisionError) as caught:
        read_stored(stored)
    assert caught.value.reason is ErrorReason.ADAPTER_NOT_STORED


@every_harm
def test_the_reader_of_adapters_reads_no_other_bytes(intake: Intake, harm: Harm) -> None:
    stored = send(intake)
    base = shared_base("sd")
    assert read_adapter(stored, base).adapters[0].sha256 == SHA256
    harm(stored.path)
    with pytest.raises(NoDecisionError) as caught:
        read_adapter(stored, base)
    assert caught.value.reason is ErrorReason.ADAPTER_NOT_STORED


@every_harm
def test_a_changed_copy_is_not_kept_for_an_image_server(
    intake: Intake, corrupt: list[int], harm: Harm
) -> None:
    send(intake)
    settle()
    kept = intake.keep(SHA256, 60)
    assert kept is not None
    harm(kept)
    assert intake.keep(SHA256, 60) is None
    assert corrupt


@every_harm
def test_a_scrub_finds_what_nobody_asks_for(intake: Intake, corrupt: list[int], harm: Harm) -> None:
    kept = send(intake, OTHER)
    harmed = send(intake)
    settle()
    ask(intake)
    harm(harmed.path)
    if harm is other_bytes:
        kept.path.chmod(0o400)  # no harm
    intake.start()
    until = time.monotonic() + 20
    while not corrupt and time.monotonic() < until:
        time.sleep(0.01)
    intake.close()
    assert len(corrupt) == 1
    assert not os.path.lexists(harmed.path)
    assert kept.path.read_bytes() == OTHER


def test_a_scrub_looks_again_after_its_period_and_ends_with_the_server(
    tmp_path: Path, corrupt: list[int]
) -> None:
    limits = IntakeSection(scrub_interval_s=0.05)
    intake = Intake(limits, tmp_path / "store", lambda: corrupt.append(1))
    intake.start()
    for seed in range(2, 5):
        path = send(intake, weights(seed)).path
        longer(path)
        until = time.monotonic() + 20
        while len(corrupt) < seed - 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(corrupt) == seed - 1
        assert not os.path.lexists(path)
    intake.close()
    until = time.monotonic() + 5
    while any(one.name == "scrub" for one in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not [one for one in threading.enumerate() if one.name == "scrub"]


def test_a_file_that_nobody_changed_is_not_read_again(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(intake)
    settle()
    reads = counted(monkeypatch, store_module, "_digest")
    for _ in range(20):
        ask(intake)
        send(intake)
    assert len(reads) == 1
    assert Intake(intake.settings, intake.store_dir).keep(SHA256, 60) is not None
    assert len(reads) == 2


def test_a_kept_copy_is_marked_seldom(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    send(intake)
    marks = counted(monkeypatch, os, "utime")
    for _ in range(50):
        assert intake.keep(SHA256, 60) is not None
    assert len(marks) == 1


def test_the_copies_used_last_stay_and_the_order_outlives_a_restart(tmp_path: Path) -> None:
    size = len(GOOD)
    limits = IntakeSection(store_limit_bytes=3 * size)
    intake = Intake(limits, tmp_path)
    first, second, third = (send(intake, weights(seed)) for seed in range(3))
    ask(intake, first.sha256)
    send(intake, weights(3))
    assert [one.path.exists() for one in (first, second, third)] == [True, False, True]
    for age_s, one in ((4e5, first), (3e5, third)):
        os.utime(one.path, (time.time() - age_s, time.time() - age_s))
    ask(
        Intake(limits, tmp_path), first.sha256
    )  # its mark is older than a day, so it is renewed on disk
    send(Intake(limits, tmp_path), weights(4))
    assert [one.path.exists() for one in (first, third)] == [True, False]


def test_taking_a_file_in_costs_no_look_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(IntakeSection(store_limit_bytes=1 << 30), tmp_path)
    send(intake, weights(0))
    looks = counted(monkeypatch, ContentStore, "_files")
    for seed in range(1, 30):
        send(intake, weights(seed))
    assert looks == []


def test_a_full_store_of_many_files_is_looked_through_once_for_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(weights(0))
    limits = IntakeSection(store_limit_bytes=200 * size)
    intake = Intake(limits, tmp_path)
    looks = counted(monkeypatch, ContentStore, "_files")
    for seed in range(260):
        send(intake, weights(seed))
    assert len(looks) < 260 / 5
    held = sum(path.stat().st_size for path in tmp_path.glob("??/*"))
    assert 0.9 * limits.store_limit_bytes < held <= limits.store_limit_bytes


def test_files_that_must_stay_are_not_looked_through_for_each_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(IntakeSection(store_limit_bytes=100 * len(weights(0))), tmp_path)
    looks = counted(monkeypatch, ContentStore, "_evict")
    for seed in range(140):
        assert intake.keep(send(intake, weights(seed)).sha256, 3600) is not None
    assert len(looks) < 15


def test_what_another_process_stores_is_counted_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(weights(0))
    limits = IntakeSection(store_limit_bytes=3 * size)
    one, other = Intake(limits, tmp_path), Intake(limits, tmp_path)
    send(one, weights(0))
    for seed in range(1, 3):
        send(other, weights(seed))
    later_s = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    send(one, weights(3))
    assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= limits.store_limit_bytes


def test_no_adopt_fails_while_others_evict_and_harm(tmp_path: Path) -> None:
    limits = IntakeSection(store_limit_bytes=6 * len(GOOD))
    intake = Intake(limits, tmp_path / "store")
    files = [weights(seed) for seed in range(40)]
    end = threading.Event()

    def vandal() -> None:
        while not end.is_set():
            for path in intake.store_dir.glob("??/*.safetensors"):
                path.unlink(missing_ok=True)
                time.sleep(0.002)

    def caller(number: int) -> int:
        for turn in range(100):
            data = files[(number * 7 + turn * 3) % len(files)]
            stored = send(intake, data)
            assert stored.size_bytes == len(data)
            intake.keep(stored.sha256, 0.0)
        return 100

    harming = threading.Thread(target=vandal)
    harming.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(caller, range(16))) == 1600
    finally:
        end.set()
        harming.join()
    send(intake, files[0])
    left = [path.stat().st_size for path in intake.store_dir.rglob("*") if path.is_file()]
    assert sum(left) <= limits.store_limit_bytes
    assert not list(intake.store_dir.glob("incoming-*"))


def test_a_file_that_replaces_a_wrong_one_while_it_is_read_is_not_deleted(
    tmp_path: Path, corrupt: list[int]
) -> None:
    store = ContentStore(tmp_path / "store", 1 << 20, lambda: corrupt.append(1))

    def adopt(data: bytes) -> None:
        file = store.incoming()
        file.write(data)
        store.adopt(file, SHA256)

    adopt(OTHER)
    store.scrub(pause=lambda: adopt(GOOD))
    assert corrupt == []
    assert store.path_of(SHA256).read_bytes() == GOOD


@settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    acts=st.lists(
        st.sampled_from(["send", "ask", "keep", "scrub", "restart", "wait", *HARMS]), max_size=12
    )
)
def test_whatever_happens_in_whatever_order_only_the_right_bytes_come_out(
    tmp_path: Path, acts: list[str | Harm]
) -> None:
    shutil.rmtree(tmp_path / "any", ignore_errors=True)
    limits = IntakeSection()
    intake = Intake(limits, tmp_path / "any")
    path = intake.keep(SHA256, 0) or send(intake).path
    for act in acts:
        if act == "send":
            assert read_stored(send(intake)) == GOOD
        elif act == "keep":
            kept = intake.keep(SHA256, 60)
            assert kept is None or kept.read_bytes() == GOOD
        elif act == "scrub":
            intake._store.scrub()
            assert not os.path.lexists(path) or path.read_bytes() == GOOD
        elif act == "restart":
            intake = Intake(limits, intake.store_dir)
        elif act == "wait":
            settle()
        elif act == "ask":
            if intake.keep(SHA256, 0) is None:
                gone(intake)
            else:
                assert ask(intake).path.read_bytes() == GOOD
        elif callable(act) and path.is_file() and path.lstat().st_size == len(GOOD):
            act(path)
