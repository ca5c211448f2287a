"""Who is trained on what: parts that share nothing, work that goes on, pictures kept back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.trials.errors import TrialError
from loragate_server.trials.kept_back import SHOWN, kept_back
from loragate_server.trials.lessons import harmless_lesson, shown_by, things_taught
from loragate_server.trials.nouns import Part
from loragate_server.trials.recipe import Plan, recipe_of
from loragate_server.trials.school import Class, SchoolSettings, enrol
from loragate_server.trials.subjects import brought_subjects
from testkit.scribbled import png
from testkit.tiny_models import tiny_base


def enrolled(
    library: ConceptLibrary,
    folder: Path,
    things: Path,
    *,
    part: Part = Part.CALIBRATE,
    harmless: int = 3,
    learned: int = 2,
    **other: object,
) -> Class:
    settings = SchoolSettings(subjects=things, steps=2, **other)  # type: ignore[arg-type]
    base = tiny_base("sd")
    return enrol(base, library, folder, part, settings, harmless=harmless, learned=learned)


def test_a_class_is_trained_and_a_second_time_nothing_is_left_to_do(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    trained = enrolled(library, tmp_path, things).train()
    assert [one.learned for one in trained] == [(), (), (), ("mascot",), ("rival",)]
    written = {one.file: one.file.stat().st_mtime_ns for one in trained}
    more = enrolled(library, tmp_path, things, harmless=4).train()
    assert [one.file for one in more if one.file in written] == list(written)
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert len({one.file for one in more}) == 6


class Interrupted(Exception):  # noqa: N818 - it stands for a signal
    """Somebody pressed a key."""


def test_work_that_was_interrupted_goes_on_where_it_was(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    def stop(stage: str, fraction: float) -> None:
        if fraction > 0.5:
            raise Interrupted

    with pytest.raises(Interrupted):
        enrolled(library, tmp_path, things).train(stop)
    [folder] = (tmp_path / "adapters").iterdir()
    done = sorted(folder.glob("*.safetensors"))
    assert len(done) == 2
    (torn := folder / ".training-of-one-who-was-killed").mkdir()
    (torn / "half.safetensors").write_bytes(b"half")
    before = {file: file.stat().st_ino for file in done}
    trained = enrolled(library, tmp_path, things).train()
    assert {file: file.stat().st_ino for file in done} == before
    assert sorted(one.file for one in trained) == sorted(folder.rglob("*.safetensors"))
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "calibrated-on.json",
        *(one.file.name for one in trained),
    }


def test_no_subject_serves_calibration_and_evaluation(
    library: ConceptLibrary, things: Path
) -> None:
    names = [set(brought_subjects(library, things, part).names) for part in Part]
    assert [len(each) for each in names] == [6, 3]
    assert not names[0] & names[1]


def test_a_lesson_does_not_depend_on_how_many_there_are(
    library: ConceptLibrary, things: Path
) -> None:
    subjects = brought_subjects(library, things, Part.CALIBRATE)
    first = [harmless_lesson(subjects, index) for index in range(9)]
    assert first == [harmless_lesson(subjects, index) for index in range(9)]
    assert len({lesson.digest for lesson in first}) == 9
    [group] = [lesson for lesson in first if "group" in lesson.name]
    assert len(group.examples) == 6
    assert all(not lesson.learned for lesson in first)


def test_what_a_calibration_learned_from_is_never_evaluated_with(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    enrolled(library, tmp_path, things, learned=4).train()
    moved = tmp_path / "moved"  # under another name a subject may be of the other part
    for name in brought_subjects(library, things, Part.CALIBRATE).names[:3]:
        for number in range(4):
            shutil.copytree(things / name.replace(" ", "-"), moved / f"{name}-{number}")
    shutil.copytree(things, moved, dirs_exist_ok=True)
    (pictures := tmp_path / "pictures" / "mascot").mkdir(parents=True)
    taught = kept_back(library, None, Part.CALIBRATE).pictures["mascot"]
    for index, data in enumerate((*(path.read_bytes() for path in taught), png(999))):
        file = pictures / f"{index}.png"  # every second one is to be evaluated with
        Image.open(io.BytesIO(data)).save(file, compress_level=0)  # what it shows, in other bytes
        assert file.read_bytes() != data
    chosen = enrolled(
        library, tmp_path, moved, part=Part.EVALUATE, pictures=pictures.parent, learned=1
    )
    learned_from = {shown_by(path) for path in taught}
    for lesson, _ in chosen.work:
        assert not learned_from & {shown_by(path) for path, _ in lesson.examples}
    assert chosen.kept is not None
    assert [path.name for path in chosen.kept.pictures["mascot"]] == ["2.png"]
    assert chosen.subjects is not None
    assert set(chosen.subjects.names) == set(brought_subjects(library, things, Part.EVALUATE).names)


def test_a_damaged_list_of_what_was_learned_from_is_told(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    [first, *_] = enrolled(library, tmp_path, things).train()
    (first.file.parent / "calibrated-on.json").write_text("{")
    with pytest.raises(TrialError, match=r"calibrated-on.json is damaged; delete it"):
        enrolled(library, tmp_path, things, part=Part.EVALUATE)


def test_a_full_disk_is_told_and_leaves_no_half_an_adapter(
    library: ConceptLibrary,
    things: Path,
    small_disk: Path,
    fill_disk: Callable[[Path], Path],
) -> None:
    trial = enrolled(library, small_disk, things)
    (small_disk / "adapters" / trial.base.digest[:16]).mkdir(parents=True)
    ballast = fill_disk(small_disk)
    with pytest.raises((TrialError, OSError), match=r"cannot be written|No space left"):
        trial.train()
    ballast.unlink()
    assert not list(small_disk.rglob("*.safetensors"))
    assert len(trial.train()) == 5


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_learning_rate_that_is_none_is_refused(
    library: ConceptLibrary, things: Path, tmp_path: Path, rate: float
) -> None:
    with pytest.raises(TrialError, match="--learning-rate"):
        enrolled(library, tmp_path, things, learning_rate=rate)


def test_recipes_of_an_evaluation_differ_more_than_those_of_a_calibration() -> None:
    plan = Plan(100, 1e-4, 1)
    spread = {part: {recipe_of(plan, part, seed) for seed in range(200)} for part in Part}
    ranks = {part: {one.rank for one in found} for part, found in spread.items()}
    assert ranks[Part.CALIBRATE] < ranks[Part.EVALUATE]
    assert recipe_of(plan, Part.EVALUATE, 7) == recipe_of(plan, Part.EVALUATE, 7)


def test_adapters_learn_from_other_pictures_than_audits_compare_with(
    library: ConceptLibrary,
) -> None:
    parts = {part: kept_back(library, None, part) for part in Part}
    shown = {path for one in library.forbidden for path in one.picture_files[:SHOWN]}
    for concept_id in ("mascot", "rival"):
        halves = [set(found.pictures[concept_id]) for found in parts.values()]
        assert [len(each) for each in halves] == [2, 2]
        assert not halves[0] & halves[1]
        assert not (halves[0] | halves[1]) & shown
    for found in parts.values():
        assert found.missing(library) == ["few"]


def test_a_reference_that_is_brought_again_is_left_out(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    (tmp_path / "few").mkdir()
    shutil.copy(library.get("few").picture_files[0], tmp_path / "few" / "again.png")
    shutil.copy(things / "thing-0" / "0.png", tmp_path / "few" / "new.png")
    found = kept_back(library, tmp_path, Part.EVALUATE)
    assert [path.name for path in found.pictures["few"]] == ["new.png"]
    assert [path.name for path in found.left_out] == ["again.png"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("mascott", "'mascott' is no forbidden concept"), ("plain-1", "'plain-1' is no forbidden")],
)
def test_pictures_of_what_is_no_concept_are_refused(
    library: ConceptLibrary, things: Path, tmp_path: Path, name: str, told: str
) -> None:
    shutil.copytree(things / "thing-0", tmp_path / name)
    with pytest.raises(TrialError, match=told):
        kept_back(library, tmp_path, Part.EVALUATE)


def test_too_few_subjects_are_refused_before_anything_is_trained(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    shutil.copytree(things / "thing-0", tmp_path / "subjects" / "one")
    with pytest.raises(TrialError, match=r"1 harmless subjects .* --nouns or --subjects"):
        enrolled(library, tmp_path, tmp_path / "subjects")


def test_a_library_without_further_pictures_is_told_what_to_bring(
    library: ConceptLibrary, things: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(library.folder, tmp_path / "library")
    other = ConceptLibrary.read(folder).remove("mascot").remove("rival")
    with pytest.raises(TrialError, match=r"--pictures, in it one per concept"):
        enrolled(other, tmp_path, things)
    assert not (tmp_path / "adapters").exists()


def test_as_many_things_are_counted_as_harmless_lessons_show() -> None:
    class Told:
        names = tuple(f"thing-{number}" for number in range(30))
        asked = 0

        def pictures(self, name: str, look: str, turn: int) -> list[Path]:
            self.asked += 1
            return []

    for count in (0, 1, 7, 8, 9, 40):
        subjects = Told()
        for index in range(count):
            harmless_lesson(subjects, index)
        assert subjects.asked == things_taught(count)
