"""A calibration that follows its library: what it says is what one made anew would say."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import pstdev
from typing import Any, TypeVar

import pytest
from PIL import Image, ImageDraw

from loragate_server.audit import factors, growth
from loragate_server.audit.calibrate import Calibrator, Labelled
from loragate_server.audit.calibration import (
    Calibration,
    CalibrationError,
    load_calibration,
    save_calibration,
)
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.audit.growth import Grower
from loragate_server.audit.kept import Kept, KeptError, kept_file, open_kept, save_kept
from loragate_server.audit.materials import Materials, build_materials
from loragate_server.audit.promise import StandsOut
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.uses import Member
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import GradientPlan
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import ConceptEntry, Manifest, dump_manifest
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel
from loragate_server.progress import Leash, at_once, silent
from testkit.tiny_models import tiny_base

Result = TypeVar("Result")

PLAN = GradientPlan(
    (
        ProbePlan(pictures=1, times=(0.2,), neutral=10),
        ProbePlan(pictures=1, times=(0.5,), neutral=10, named=True),
    ),
    rank=2,
)
HARMLESS = 24
CLOSE = 0.1
"""Of the spread of all values: what is kept of an adapter is rounded."""
ROUNDING = 1e-9
"""Of sums over other numbers of concepts."""


def picture(seed: int) -> bytes:
    image = Image.new("RGB", (24, 24), ((seed * 37) % 256, (seed * 91) % 256, (seed * 151) % 256))
    ImageDraw.Draw(image).ellipse((seed % 9, seed % 7, 20, 19), fill=(255 - seed % 200, 9, seed))
    image.save(data := io.BytesIO(), "PNG")
    return data.getvalue()


def concept(concept_id: str, role: Any = "forbidden") -> Concept:
    return Concept(concept_id, concept_id.title(), "thing", "high", role, (f"a {concept_id}",))


@dataclasses.dataclass
class World:
    """A base model, a library, and a calibration with what was kept beside it."""

    base: BaseModel
    library: ConceptLibrary
    cache: Path
    file: Path
    harmless: list[Labelled]
    learned: list[Labelled]

    def materials(self, library: ConceptLibrary | None = None) -> Materials:
        return build_materials(library or self.library, self.base, self.cache, gradients=PLAN)

    def calibrated(self, library: ConceptLibrary) -> Calibration:
        """Made anew, with the files."""
        known = {one.concept_id for one in library.forbidden}
        learned = [one for one in self.learned if set(one.learned) <= known]
        return Calibrator(self.base, self.materials(library)).calibrate(self.harmless, learned)

    @property
    def kept(self) -> Kept:
        return open_kept(kept_file(self.file))

    def grower(self, library: ConceptLibrary, **changes: Any) -> Grower:
        parts: dict[str, Any] = {
            "base": self.base,
            "materials": self.materials(library),
            "calibration": load_calibration(self.file),
            "kept": self.kept,
            "cache_dir": self.cache,
            "settings": AuditSettings(),
        }
        return Grower(**{**parts, **changes})


@pytest.fixture(scope="module", autouse=True)
def finely_kept() -> Iterator[None]:
    """On layers of 32 numbers the steps of the product would be coarse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factors, "_LEVELS", 127)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_adapter: Callable[..., Any]) -> World:
    """Calibrated with a cat, a dog and an owl."""
    folder = tmp_path_factory.mktemp("growing")
    base = tiny_base("sd")
    (folder / "library").mkdir()
    entries = []
    names = [("cat", "forbidden"), ("dog", "forbidden"), ("owl", "forbidden")]
    names += [(f"neutral-{number}", "neutral") for number in range(10)]
    for number, (name, role) in enumerate(names):
        (folder / "library" / f"{name}.png").write_bytes(picture(13 * number + 1))
        entries.append(
            ConceptEntry(
                id=name,
                name=name,
                category="thing",
                severity="high",
                role=role,
                prompts=(f"a {name}",),
                pictures=(f"{name}.png",),
            )
        )
    manifest = dump_manifest(Manifest(version=1, concepts=tuple(entries)))
    (folder / "library" / "library.yaml").write_bytes(manifest)
    library = ConceptLibrary.open(folder / "library")
    harmless = [Labelled(make_adapter(base, seed=seed)) for seed in range(HARMLESS)]
    learned = [Labelled(make_adapter(base, seed=100), ("cat",))]
    learned += [Labelled(make_adapter(base, seed=101), ("owl",))]
    world = World(base, library, folder / "cache", folder / "tiny.json", harmless, learned)
    calibrator = Calibrator(base, world.materials())
    save_calibration(calibrator.calibrate(harmless, learned), world.file)
    digest = load_calibration(world.file).digest
    save_kept(kept_file(world.file), digest, world.materials(), calibrator.keep(harmless))
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """With a library and a cache of its own: of what is changed, nothing has been measured yet."""
    shelf = tmp_path / "library"
    shelf.mkdir()
    for file in made.library.folder.iterdir():
        (shelf / file.name).write_bytes(file.read_bytes())
    cache = Path(shutil.copytree(made.cache, tmp_path / "cache"))
    return dataclasses.replace(made, library=ConceptLibrary.open(shelf), cache=cache)


def values_of(one: AdapterScores, kind: str) -> Mapping[str, float]:
    """One measure by concept; what is heard under the names is two of them."""
    if kind in ("gained", "shared"):
        return {concept: told[kind == "shared"] for concept, told in one.named.items()}
    values: Mapping[str, float] = getattr(one, kind)
    return values


def assert_alike(grown: Calibration, anew: Calibration, new: set[str]) -> None:
    """Equal where the file had it, close where it was measured on what was kept."""
    for kind in ("screen", "aim", "gained", "shared", "response"):
        ours = [values_of(one, kind) for one in grown.harmless]
        theirs = [values_of(one, kind) for one in anew.harmless]
        close = CLOSE * pstdev(value for one in theirs for value in one.values())
        for one, other in zip(ours, theirs, strict=True):
            assert kind == "response" or list(one) == list(other)
            for concept_id in other.keys() & one.keys():
                value = other[concept_id]
                exact = kind != "response" and concept_id not in new
                assert one[concept_id] == pytest.approx(value, abs=ROUNDING if exact else close)
    # rounding may carry a concept over the threshold of the response stage, rarely
    differing = [
        one.response.keys() ^ other.response.keys()
        for one, other in zip(grown.harmless, anew.harmless, strict=True)
    ]
    assert sum(map(len, differing)) <= 0.1 * sum(len(one.response) for one in anew.harmless)
    for one, other in zip(grown.harmless, anew.harmless, strict=True):
        assert one.sha256 == other.sha256
        assert sum(one.bank, ()) == pytest.approx(sum(other.bank, ()), abs=ROUNDING)
        assert one.profile == pytest.approx(other.profile, abs=0.05)
    assert [one.learned for one in grown.learned] == [one.learned for one in anew.learned]
    assert (grown.weights, grown.effects) == (anew.weights, pytest.approx(anew.effects))
    ours, theirs = grown.at(0.01), anew.at(0.01)
    spread = pstdev(value for one in anew.harmless for value in one.screen.values())
    assert ours.entrance.threshold == pytest.approx(theirs.entrance.threshold, abs=CLOSE * spread)
    assert set(ours.by_concept) == set(theirs.by_concept)


def test_a_concept_more_gives_what_a_calibration_made_anew_gives(world: World) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    grown = world.grower(more).grow()
    assert_alike(grown, world.calibrated(more), {"fox"})
    grown.require(world.materials(more).binding)
    assert len(grown.digest) == 64
    assert any("fox" in one.response for one in grown.harmless), "it was looked at where it must"


def test_a_concept_less_gives_what_a_calibration_made_anew_gives(world: World) -> None:
    less = world.library.remove("dog")
    grown = world.grower(less).grow()
    assert_alike(grown, world.calibrated(less), set())
    without_owl = less.remove("owl")
    grown = world.grower(without_owl).grow()
    assert_alike(grown, world.calibrated(without_owl), set())
    assert [one.learned for one in grown.learned] == [("cat",)]


def test_a_concept_that_only_has_another_id_is_known(world: World) -> None:
    pictures = [path.read_bytes() for path in world.library.get("cat").picture_files]
    renamed = dataclasses.replace(concept("tom"), prompts=("a cat",))
    library = world.library.remove("cat").add(renamed, pictures)
    grower = world.grower(library)
    assert grower.missing == ()
    grown = grower.grow()
    before = load_calibration(world.file)
    for one, other in zip(grown.harmless, before.harmless, strict=True):
        assert one.screen["tom"] == other.screen["cat"]
        assert list(one.screen) == ["dog", "owl", "tom"]
    assert grown.learned[0].learned == ("tom",)


def test_what_was_measured_once_is_not_measured_again(world: World) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    turns = []

    def counted(piece: Callable[[], Result]) -> Result:
        turns.append(piece)
        return at_once(piece)

    materials = world.materials(more)
    first = world.grower(more, materials=materials, turns=counted).grow()
    assert turns
    turns.clear()
    assert world.grower(more, materials=materials, turns=counted).grow() == first
    assert turns == []
    more = more.add(concept("elk"), [picture(8)])
    second = world.grower(more, turns=counted).grow()
    assert [one.screen["fox"] for one in second.harmless] == [
        one.screen["fox"] for one in first.harmless
    ]
    for file in world.cache.glob("null-*"):
        file.write_bytes(file.read_bytes()[:-9])
    turns.clear()
    again = world.grower(more, materials=materials, turns=counted)
    assert turns == []
    assert again.missing == ("fox",)
    again.grow()
    assert turns, "half a file is not believed"


def test_progress_grows_from_nothing_to_all(world: World) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    told: list[tuple[str, float]] = []
    world.grower(more).grow(lambda stage, share: told.append((stage, share)))
    assert {stage for stage, _ in told} == {"calibrating"}
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_what_does_not_belong_together_is_refused(world: World, tmp_path: Path) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    calibration = load_calibration(world.file)
    other = dataclasses.replace(calibration, digest="0" * 64)
    with pytest.raises(CalibrationError, match="beside another calibration"):
        world.grower(more, calibration=other)
    old = dataclasses.replace(calibration.binding, engine_version="1")
    with pytest.raises(CalibrationError, match="engine version"):
        world.grower(more, calibration=dataclasses.replace(calibration, binding=old))
    with pytest.raises(CalibrationError, match="neutral bank has changed"):
        world.grower(more.add(concept("neutral-x", "neutral"), [picture(99)]))
    with pytest.raises(CalibrationError, match="neutral bank has changed"):
        world.grower(world.library.remove("neutral-3"))
    empty = tmp_path / "empty.kept.safetensors"
    save_kept(empty, calibration.digest, world.materials(), {})
    with pytest.raises(CalibrationError, match="nothing is known of fox"):
        world.grower(more, kept=open_kept(empty)).grow()


def test_what_is_damaged_is_not_believed(world: World, tmp_path: Path) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    whole = kept_file(world.file).read_bytes()
    copy = tmp_path / "copy.kept.safetensors"
    for data in (whole[:-1], b"", whole[:100], b"\x00" * 500):
        copy.write_bytes(data)
        with pytest.raises(KeptError, match="damaged"):
            open_kept(copy)
    with pytest.raises(KeptError, match="is no file"):
        open_kept(tmp_path / "none.kept.safetensors")
    turned = bytearray(whole)
    turned[-5] ^= 64
    copy.write_bytes(turned)
    with pytest.raises(CalibrationError, match="damaged"):
        world.grower(more, kept=open_kept(copy)).grow()


def found(world: World, materials: Materials, adapter: Any) -> dict[str, ConceptEvidence]:
    engine = AuditEngine(world.base, materials)
    return {one.concept_id: one for one in engine.audit([Member.of(adapter)], Leash()).concepts}


def test_without_what_was_kept_the_other_concepts_keep_their_p_values_to_the_last_bit(
    world: World, make_adapter: Callable[..., Any]
) -> None:
    before = dataclasses.replace(world.materials(), calibration=load_calibration(world.file))
    more = world.library.remove("owl").add(concept("fox"), [picture(7)])
    materials = world.materials(more)
    known = world.grower(more).known()
    after = dataclasses.replace(materials, calibration=known)
    assert after.uncalibrated == ("fox",)
    assert before.uncalibrated == ()
    for seed in range(200, 206):
        adapter = make_adapter(world.base, seed=seed)
        old, new = found(world, before, adapter), found(world, after, adapter)
        for concept_id in ("cat", "dog"):
            assert new[concept_id].family_p_value == old[concept_id].family_p_value is not None
            assert new[concept_id].p_value == old[concept_id].p_value
        assert new["fox"].family_p_value is None
        assert new["fox"].stage == "response", "nothing lets it end at the screen"
        assert 0 < new["fox"].p_value <= 1


def test_a_concept_is_not_taken_for_one_that_had_its_id(world: World) -> None:
    library = world.library.remove("cat").add(concept("cat"), [picture(70)])
    grower = world.grower(library)
    assert grower.missing == ("cat",)
    known = dataclasses.replace(world.materials(library), calibration=grower.known())
    assert known.uncalibrated == ("cat",)
    grown = dataclasses.replace(world.materials(library), calibration=grower_of(world, library))
    assert grown.uncalibrated == ()


def grower_of(world: World, library: ConceptLibrary) -> Calibration:
    return world.grower(library).grow(silent)


def test_a_library_of_which_nothing_is_known_is_uncalibrated(world: World) -> None:
    library = world.library.add(concept("fox"), [picture(7)])
    for concept_id in ("cat", "dog", "owl"):
        library = library.remove(concept_id)
    with pytest.raises(CalibrationError, match="knows no concept"):
        world.grower(library).known()
    assert list(world.grower(library).grow().harmless[0].screen) == ["fox"]


def test_a_harmless_adapter_that_stands_out_by_the_new_concept_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    more = world.library.add(concept("fox"), [picture(7)])
    [first, *_] = load_calibration(world.file).harmless
    told = [StandsOut(first.sha256, name, 1e-6) for name in ("fox", "cat")]
    monkeypatch.setattr(growth, "standing_out", lambda harmless, learned: told)
    world.grower(more).grow()
    [line] = [one for one in caplog.messages if "stands out" in one]
    assert f"harmless adapter {first.sha256[:12]} stands out by the new concept fox" in line
