"""No record, no verdict; and whatever fails, the next question is answered."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.verdict import Verdict


async def refusal(asked: Any) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as refused:
        await asked
    return refused.value


async def test_without_the_decision_log_there_is_no_verdict(house: Callable[..., Any]) -> None:
    here = house()
    kept = here.log_path.with_suffix(".kept")
    here.log_path.rename(kept)
    here.log_path.mkdir()  # what stands in the way of a log that is opened again
    here.recorder.log.close()
    error = await refusal(here.ask())
    assert error.reason is ErrorReason.DECISION_LOG_UNAVAILABLE
    assert here.counts.answers == []
    assert len(here.gate._cache) == 0
    here.log_path.rmdir()
    kept.rename(here.log_path)


async def test_without_the_database_there_is_no_verdict_and_then_there_is(
    house: Callable[..., Any],
) -> None:
    here = house()
    database = here.log_path.parent / "audits.db"
    blocker = sqlite3.connect(database, isolation_level=None)
    blocker.execute("ALTER TABLE audits RENAME TO gone")
    error = await refusal(here.ask())
    assert error.reason is ErrorReason.DATABASE_UNAVAILABLE
    assert len(here.gate._cache) == 0
    blocker.execute("ALTER TABLE gone RENAME TO audits")
    blocker.close()
    verdict = await here.ask()
    assert not verdict.cached, "what was not recorded was not remembered"
    assert here.recorder.get(verdict.decision_id).decision == verdict.decision


async def test_a_full_disk_gives_no_verdict_and_then_there_is_one(
    house: Callable[..., Any], small_disk: Any, fill_disk: Callable[..., Any]
) -> None:
    here = house()
    from loragate_server.record.recorder import Recorder

    recorder = Recorder(f"sqlite:///{here.root}/other.db", small_disk / "decisions.jsonl")
    here.gate._pipeline._recorder = recorder
    ballast = fill_disk(small_disk)
    error = await refusal(here.ask())
    assert error.reason is ErrorReason.DISK_FULL
    ballast.unlink()
    assert (await here.ask()).decision_id
    recorder.close()


async def test_a_recorder_that_raises_something_else_is_no_verdict_either(
    house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()

    def fail(*_: Any, **__: Any) -> Verdict:
        raise OSError(5, "secret device")

    monkeypatch.setattr(here.recorder, "record", fail)
    error = await refusal(here.ask())
    assert error.reason is ErrorReason.AUDIT_FAILED
    assert "secret" not in str(error)
    monkeypatch.undo()
    assert (await here.ask()).decision_id


async def test_a_decision_that_is_being_written_is_finished_when_its_caller_goes(
    house: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()
    entered, may_go = threading.Event(), threading.Event()
    record = here.recorder.record

    def slow(*arguments: Any, **options: Any) -> Verdict:
        entered.set()
        assert may_go.wait(20)
        return record(*arguments, **options)

    monkeypatch.setattr(here.recorder, "record", slow)
    writing = here.ask(here.request(0))
    assert await asyncio.to_thread(entered.wait, 20)
    behind = here.ask(here.request(1))
    await until(lambda: here.gate._pipeline._record_pool._work_queue.qsize() == 1)
    for asked in (writing, behind):
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    may_go.set()
    await until(lambda: here.recorded() == 2)


async def test_a_stored_file_that_has_gone_is_no_verdict(house: Callable[..., Any]) -> None:
    here = house()
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1))
    store = here.gate._intake._intake.store_dir
    while len(list(store.glob("??/*.safetensors"))) < 2 or here.gate.worker.depth < 1:
        await asyncio.sleep(0.001)
    for path in store.glob("??/*.safetensors"):
        os.unlink(path)  # noqa: PTH108
    here.engine.let_go()
    await running
    assert (await refusal(waiting)).reason is ErrorReason.ADAPTER_NOT_STORED
    assert (await here.ask(here.request(1))).decision_id


async def test_an_audit_of_a_broken_configuration_is_no_verdict(house: Callable[..., Any]) -> None:
    here = house()
    (folder := here.root / "style").mkdir()
    (folder / "adapter_model.safetensors").write_bytes(here.files(0))
    (folder / "adapter_config.json").write_text('{"r": 4, "r": 8}')
    request = here.request(adapters=(here.reference(path=str(folder)),))
    assert (await refusal(here.ask(request))).reason is ErrorReason.ADAPTER_METADATA_INVALID
    dry = dataclasses.replace(here.request(), dry_run=True)
    assert (await here.ask(dry)).dry_run
