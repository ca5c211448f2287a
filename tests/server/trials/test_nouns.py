"""Words for the bank and for harmless adapters: none is forbidden, none serves two parts."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.trials.bank import free_nouns
from loragate_server.trials.drawing import Artist
from loragate_server.trials.errors import TrialError
from loragate_server.trials.nouns import NOUNS, Part, read_nouns, share, slug, without_forbidden
from loragate_server.trials.subjects import DrawnSubjects


def forbidden(concept_id: str, name: str = "", *prompts: str) -> Concept:
    return Concept(concept_id, name or concept_id, "thing", "high", "forbidden", prompts)


def test_the_list_that_ships_fills_a_bank_and_leaves_subjects_for_both_parts() -> None:
    words = read_nouns(NOUNS)
    assert len({slug(word) for word in words}) == len(words) == 427
    rest = words[64:]
    calibrated, evaluated = share(rest, Part.CALIBRATE), share(rest, Part.EVALUATE)
    assert set(calibrated) | set(evaluated) == set(rest)
    assert not set(calibrated) & set(evaluated)
    assert (len(calibrated), len(evaluated)) == (240, 123)


def test_a_word_stays_in_its_part_whatever_comes_or_goes_beside_it() -> None:
    words = read_nouns(NOUNS)
    for part in Part:
        every = share(words, part)
        assert share(words[5:], part) == tuple(one for one in every if one in words[5:])


def test_words_that_are_in_a_forbidden_name_are_left_out() -> None:
    concepts = [
        forbidden("our-teapot"),
        forbidden("x", "The Frying Pan Man"),
        forbidden("y", "Y", "a picture of owls and a fox"),
    ]
    words = ["teapot", "frying pan", "pan", "owl", "fox", "pot", "an"]
    assert without_forbidden(words, concepts) == ("pot", "an")


def test_a_file_of_nouns_is_read_without_remarks_and_repeats(tmp_path: Path) -> None:
    file = tmp_path / "nouns.txt"
    file.write_text("# ours\n\n cat \nfrying   pan\ncat\n")
    assert read_nouns(file) == ("cat", "frying pan")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"cat\n" + b"x" * 81, "nouns.txt:2: write one noun a line"),
        ("犬\n".encode(), "nouns.txt:1: write one noun a line"),
        (b"a\x07b\n", "nouns.txt:1"),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_what_is_no_list_of_nouns_is_told_by_its_line(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (file := tmp_path / "nouns.txt").write_bytes(data)
    with pytest.raises(TrialError, match=told):
        read_nouns(file)


def test_of_two_words_with_one_id_the_first_is_taken() -> None:
    library = ConceptLibrary(Path(), "", (forbidden("tea"),))
    words = ["Ice cream", "ice-cream", "tea", "ICE CREAM", "milk"]
    assert free_nouns(library, words) == ("Ice cream", "milk")


def test_only_the_two_braces_of_a_prompt_stand_for_the_noun(tmp_path: Path) -> None:
    asked = []

    class Told:
        def picture(self, prompt: str, number: int) -> Path:
            asked.append((prompt, number))
            return tmp_path

    subjects = DrawnSubjects(("cat",), cast("Artist", Told()), "a {style} photo } of {}", 1)
    assert subjects.pictures("cat", "red", 3) == [tmp_path]
    assert asked == [("a {style} photo } of red cat", 3)]
