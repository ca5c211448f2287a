"""Numbers, times, plural forms and names as a language writes them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loragate_server.report.wording import report_wording
from loragate_server.wording.catalogue import Catalogue
from loragate_server.wording.choice import chosen_language
from loragate_server.wording.wording import NO_NUMBER, Wording

AT = datetime(2026, 1, 2, 22, 4, 5, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Languages that differ in plurals, numbers and days."""
    (tmp_path / "en.yaml").write_text(
        "files:\n  found:\n    one: '{count} file'\n    other: '{count} files'\n"
    )
    (tmp_path / "pl.yaml").write_text(
        "files:\n  found: {one: '{count} plik', few: '{count} pliki', many: '{count} plików',"
        " other: '{count} pliku'}\ntime: {zone: Europe/Warsaw, moment: '{local}'}\n",
        encoding="utf-8",
    )
    (tmp_path / "pt-BR.yaml").write_text("files:\n  found: '{count}: achados'\n")
    return tmp_path


def test_times_are_in_utc_and_where_readers_share_a_time_in_theirs() -> None:
    assert report_wording("en").moment(AT) == "2026-01-02 22:04:05 UTC"
    in_japan = "2026年1月3日 07:04:05（日本時間）／ 2026-01-02 22:04:05 UTC"
    assert report_wording("ja").moment(AT) == in_japan


def test_plural_forms_numbers_and_days_follow_the_language(folder: Path) -> None:
    english, polish, brazilian = (
        Wording(language, Catalogue(folder)) for language in ("en", "pl", "pt-BR")
    )
    assert english("files.found", count=1) == "1 file"
    assert [polish("files.found", count=n) for n in (1, 3, 5)] == ["1 plik", "3 pliki", "5 plików"]
    assert brazilian("files.found", count=12345) == "12.345: achados"
    assert polish.moment(AT) == "2 stycznia 2026 23:04:05"
    assert (brazilian.decimal(-0.125, 3), brazilian.percent(0.3333)) == ("−0,125", "33,3 %")
    assert brazilian.p_value(1e-9) == "< 0,000001"
    assert brazilian.language_name("ja") == "japonês"


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(2.675, 2, "2.67"), (-0.04, 1, "0.0"), (-1.25, 1, "−1.2"), (12345.6, 1, "12345.6"),
     (7.5, 0, "8"), (math.inf, 1, "∞"), (-math.inf, 1, "−∞"), (math.nan, 1, NO_NUMBER)],
)  # fmt: skip
def test_a_decimal_number_is_rounded_alike_in_every_language(
    value: float, digits: int, shown: str
) -> None:
    assert report_wording("en").decimal(value, digits) == shown
    assert report_wording("ja").decimal(value, digits) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "< 0.000001"), (1e-6, "0.000001"), (0.000123, "0.00012"), (0.05, "0.05"), (1.0, "1"),
     (math.nan, NO_NUMBER), (1.5, NO_NUMBER)],
)  # fmt: skip
def test_a_p_value_has_no_exponent(value: float, shown: str) -> None:
    assert report_wording("en").p_value(value) == shown


@pytest.mark.parametrize(
    ("preferred", "language"),
    [("pt-br", "pt-BR"), ("pl-PL,en;q=0.9", "pl"), ("de,fr", "en"), ("PL", "pl")],
)
def test_a_reader_gets_the_language_that_is_nearest(
    preferred: str, language: str, folder: Path
) -> None:
    assert chosen_language({}, {}, preferred, Catalogue(folder).languages) == language


def test_a_choice_that_is_no_language_of_ours_is_no_file_either(folder: Path) -> None:
    offered = Catalogue(folder).languages
    assert chosen_language({"language": "../en"}, {}, "", offered) == "en"
