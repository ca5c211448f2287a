"""Which earlier scans a scan takes measurements from."""

from __future__ import annotations

import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.catalogue.earlier import Facts, earlier_scans, responses_in, write_facts
from loragate_server.catalogue.scan import scan_id_of
from loragate_server.gate.bases import ServedBase

NOW = Facts(
    source="/loras",
    base_model="emoji-tiny",
    base_digest="b" * 64,
    library_digest="c" * 64,
    policy_digest="d" * 64,
    engine_version=ENGINE_VERSION,
    loaders=("diffusers",),
    fed={"cat": "rows of cat"},
    bank="bank",
)


def with_scan(out: Path, **changes: object) -> Path:
    """Writes what an earlier scan was made of."""
    folder = out / "earlier"
    folder.mkdir()
    write_facts(folder, NOW.model_copy(update=changes))
    return folder


@pytest.mark.parametrize(
    "word",
    [
        "source",
        "library_digest",
        "calibration_digest",
        "policy_digest",
    ],
)
def test_a_scan_of_another_source_library_calibration_or_policy_measured_the_same_of_a_file(
    tmp_path: Path, word: str
) -> None:
    folder = with_scan(tmp_path, **{word: "another"})
    assert [found for found, _ in earlier_scans(tmp_path, NOW)] == [folder]


@pytest.mark.parametrize(
    "change",
    [
        {"base_digest": "0" * 64},
        {"bank": "another"},
        {"engine_version": "0"},
        {"loaders": ("comfyui",)},
        {"loaders": ("diffusers", "comfyui")},
    ],
)
def test_nothing_is_taken_from_a_scan_that_measured_other_weights_or_by_other_means(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with_scan(tmp_path, library_digest="another", **change)
    assert earlier_scans(tmp_path, NOW) == []


def test_results_of_an_earlier_scan_that_are_damaged_end_no_scan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_scan(tmp_path, library_digest="another")
    (folder / "part-000001.parquet").write_bytes(b"cut short")
    with caplog.at_level(logging.WARNING, logger="loragate_server"):
        assert responses_in(earlier_scans(tmp_path, NOW), Mock()) == {}
    assert f"nothing is taken from the earlier scan {folder}" in caplog.text


def named(calibration: str) -> str:
    """What a scan with a calibration is called."""
    served = ServedBase("emoji-tiny", Mock(digest="b" * 64), Mock(), "c" * 64, frozenset())
    return scan_id_of("/loras", served, calibration, Mock(digest="d" * 64), ("diffusers",))


def test_a_scan_with_another_calibration_is_another_scan() -> None:
    assert named("1" * 64) == named("1" * 64)
    assert len({named("1" * 64), named("2" * 64), named("")}) == 3
