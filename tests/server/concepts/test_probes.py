"""Probes: what the rows are, and when the cache on disk is believed."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loragate_server.concepts import cache as cache_module
from loragate_server.concepts import probes
from loragate_server.concepts.cache import KEPT_OTHERS
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.pictures import load_pictures
from loragate_server.concepts.probes import (
    ProbePlan,
    ProbeSet,
    build_probes,
    encode_probe_prompts,
    prompt_rows,
)
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models import BaseModel
from loragate_server.progress import silent
from testkit.tiny_models import tiny_base

Encodings = list[int]


class GoneError(Exception):
    """What a report raises when nobody waits any more."""


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base("sd")


@pytest.fixture
def encodings(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> Encodings:
    """Grows by the number of pictures whenever the base model's VAE encodes some."""
    counted: Encodings = []
    encode = base.encode_pictures

    def counting(pictures: Tensor) -> Tensor:
        counted.append(len(pictures))
        return encode(pictures)

    monkeypatch.setattr(base, "encode_pictures", counting)
    return counted


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "probes"


def files(cache: Path) -> set[Path]:
    return {*cache.glob("*.safetensors")}


def same(first: ProbeSet, second: ProbeSet) -> bool:
    return torch.equal(first.noisy, second.noisy) and torch.equal(first.target, second.target)


def test_the_default_is_two_pictures_at_one_time_against_a_bank_of_32() -> None:
    plan = ProbePlan()
    assert (plan.pictures, plan.times, plan.neutral, plan.rows) == (2, (0.16,), 32, 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"pictures": 0},
        {"times": ()},
        {"times": (0.0,)},
        {"times": (0.5, 1.1)},
        {"times": (float("nan"),)},
        {"neutral": 7},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    [field] = bad
    with pytest.raises(ValueError, match=field):
        ProbePlan(**bad)


def test_rows_are_noised_latents_by_concept_picture_and_time(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    plan = ProbePlan(pictures=2, times=(0.1, 0.5, 0.9))
    probes = build_probes(library, base, cache, plan=plan)
    assert probes.noisy.shape == probes.target.shape == (11, 6, 4, 8, 8)
    assert probes.times.tolist() == pytest.approx([0.1, 0.5, 0.9] * 2)
    pictures = load_pictures(library.get("neutral-4"), base.picture_size)
    with torch.inference_mode():
        latent = base.encode_pictures(pictures)[1:]
        noise = probes.target[:1, 4]
        expected = base.add_noise(latent, noise, torch.tensor([0.5]))
    place = [concept.concept_id for concept in probes.concepts].index("neutral-4")
    torch.testing.assert_close(probes.noisy[place, 4], expected[0])


def test_all_concepts_share_the_noise_and_slots_do_not(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    target = build_probes(library, base, cache, plan=ProbePlan(times=(0.2, 0.3))).target
    assert torch.equal(target, target[:1].expand_as(target))
    rows = target[0].flatten(1)
    assert torch.pdist(rows).min() > 1
    assert abs(float(rows.mean())) < 0.1
    assert float(rows.std()) == pytest.approx(1, abs=0.1)


def test_a_concept_with_few_pictures_repeats_them_under_other_noise(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    build_probes(library, base, cache, plan=ProbePlan(pictures=5))
    every = [load_file(path)["latents"] for path in cache.glob("*.safetensors")]
    assert len(every) == 11
    for latents in every:
        assert torch.equal(latents[0], latents[2])
        assert torch.equal(latents[1], latents[3])
        assert not torch.equal(latents[0], latents[1])


def test_large_pictures_go_through_the_vae_a_few_at_a_time_and_none_twice(
    library: ConceptLibrary,
    base: BaseModel,
    cache: Path,
    tmp_path: Path,
    encodings: Encodings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = ProbePlan(pictures=5, times=(0.2,), neutral=8)
    whole = build_probes(library, base, cache, silent, plan)
    assert set(encodings) == {5}
    encodings.clear()
    height, width = base.picture_size
    monkeypatch.setattr(probes, "MOST_PIXELS", height * width)
    pieces = build_probes(library, base, tmp_path / "other", silent, plan)
    assert encodings == [1] * sum(len(one.picture_files) for one in whole.concepts)
    assert torch.allclose(whole.noisy, pieces.noisy, atol=1e-5)


def test_forbidden_concepts_come_first_and_the_bank_is_as_large_as_planned(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    every = build_probes(library, base, cache)
    assert (every.forbidden_count, every.neutral_count) == (2, 9)
    assert [concept.concept_id for concept in every.concepts[:2]] == ["cat", "dog"]
    eight = build_probes(library, base, cache, plan=ProbePlan(neutral=8))
    assert (eight.forbidden_count, eight.neutral_count) == (2, 8)
    assert [*eight.concepts] == sorted(
        eight.concepts, key=lambda concept: (concept.role, concept.concept_id)
    )


def test_one_neutral_concept_more_changes_the_bank_in_one_place_at_most(
    library: ConceptLibrary, base: BaseModel, cache: Path, draw: Callable[..., bytes]
) -> None:
    plan = ProbePlan(neutral=8)
    before = {c.concept_id for c in build_probes(library, base, cache, plan=plan).concepts}
    for number in range(4):
        new = Concept(f"added-{number}", "Added", "thing", "low", "neutral")
        library = library.add(new, [draw(number)])
        after = {c.concept_id for c in build_probes(library, base, cache, plan=plan).concepts}
        assert len(before - after) <= 1
        before = after


def test_the_second_build_comes_from_the_cache_and_encodes_nothing(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    first = build_probes(library, base, cache)
    assert sum(encodings) == 11 * ProbePlan().rows
    encodings.clear()
    reports: list[Any] = []
    second = build_probes(library, base, cache, lambda *report: reports.append(report))
    assert encodings == reports == []
    assert same(first, second)
    assert first.concepts == second.concepts


def test_the_cache_is_used_again_by_a_library_that_was_opened_anew(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    build_probes(library, base, cache)
    encodings.clear()
    build_probes(ConceptLibrary.open(library.folder), base, cache)
    assert encodings == []


def test_a_changed_picture_rebuilds_its_concept_alone_beside_the_old_file(
    library: ConceptLibrary,
    base: BaseModel,
    cache: Path,
    encodings: Encodings,
    draw: Callable[..., bytes],
) -> None:
    first = build_probes(library, base, cache)
    old = files(cache)
    library.get("cat").picture_files[0].write_bytes(draw(777))
    encodings.clear()
    second = build_probes(ConceptLibrary.open(library.folder), base, cache)
    assert sum(encodings) == ProbePlan().rows
    assert not torch.equal(first.noisy[0, 0], second.noisy[0, 0])
    assert torch.equal(first.noisy[1:], second.noisy[1:])
    assert second.library_digest != first.library_digest
    assert old < files(cache)
    assert len(files(cache) - old) == 1


def test_files_of_long_gone_libraries_are_removed_the_oldest_first(
    library: ConceptLibrary, base: BaseModel, cache: Path, draw: Callable[..., bytes]
) -> None:
    build_probes(library, base, cache)
    kept, gone = KEPT_OTHERS * 11, 3
    old = [*files(cache)]
    for number in range(kept + gone - len(old)):
        old.append(old[0].with_name(f"{old[0].stem}{number}.safetensors"))
        old[-1].write_bytes(b"of a library that was")
    for number, path in enumerate(old):
        os.utime(path, (1000 + number, 1000 + number))
    for concept in library.concepts:
        for path in concept.picture_files:
            path.write_bytes(draw(sum(path.name.encode()) + 900))
    build_probes(ConceptLibrary.open(library.folder), base, cache)
    left = files(cache)
    assert len(left - {*old}) == 11
    assert left & {*old} == {*old[gone:]}


def test_another_base_model_rebuilds_and_both_are_kept(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    other = tiny_base("sd", seed=1)
    first, second = build_probes(library, base, cache), build_probes(library, other, cache)
    assert not same(first, second)
    assert (first.base_digest, second.base_digest) == (base.digest, other.digest)
    encodings.clear()
    assert same(build_probes(library, base, cache), first)
    assert encodings == []
    assert len(files(cache)) == 22


def test_other_pictures_are_not_served_from_the_cache(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    build_probes(library, base, cache)
    encodings.clear()
    build_probes(library, base, cache, plan=ProbePlan(pictures=4))
    assert encodings


@pytest.mark.parametrize(
    "change", [{"times": (0.3, 0.7)}, {"seed": 9}, {"named": True}, {"neutral": 8}]
)
def test_plans_over_the_same_pictures_encode_them_once(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings, change: Any
) -> None:
    build_probes(library, base, cache)
    encodings.clear()
    plan = ProbePlan(**change)
    probes = build_probes(library, base, cache, plan=plan)
    assert encodings == []
    assert probes.noisy.shape[1] == plan.rows


def test_named_rows_are_told_the_concepts_own_prompt(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    named = build_probes(library, base, cache, plan=ProbePlan(named=True))
    plain = build_probes(library, base, cache)
    told = encode_probe_prompts(base, named).tensors["encoder_hidden_states"]
    assert len(told) == len(named.concepts)
    assert named.prompt_of(0) == "a picture of cat"
    assert plain.prompt_of(0) == "a picture"
    assert prompt_rows(named, torch.tensor([3, 1])).tolist() == [3, 1]
    assert prompt_rows(plain, torch.tensor([3, 1])).tolist() == [0, 0]
    alone = base.encode_prompts(["a picture of dog"]).tensors["encoder_hidden_states"]
    torch.testing.assert_close(told[1:2], alone)
    assert len(encode_probe_prompts(base, plain).tensors["encoder_hidden_states"]) == 1


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def _poison(path: Path) -> None:
    save_file({"latents": torch.zeros_like(load_file(path)["latents"])}, path)


def _reshape(path: Path) -> None:
    save_file({"latents": load_file(path)["latents"][:-1].clone()}, path)


BREAKS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "something else": lambda path: path.write_bytes(b"\x80\x04K\x01." * 100),
    "one bit": _flip_a_bit,
    "other numbers": _poison,
    "one picture less": _reshape,
    "other name": lambda path: save_file({"latent": load_file(path)["latents"]}, path),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_file_is_made_again_and_not_believed(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings, name: str
) -> None:
    first = build_probes(library, base, cache)
    path = min(files(cache))
    whole = path.read_bytes()
    BREAKS[name](path)
    encodings.clear()
    assert same(build_probes(library, base, cache), first)
    assert sum(encodings) == ProbePlan().rows
    assert path.read_bytes() == whole


def test_progress_grows_from_nothing_to_all(
    library: ConceptLibrary, base: BaseModel, cache: Path
) -> None:
    told: list[tuple[str, float]] = []
    build_probes(library, base, cache, lambda stage, share: told.append((stage, share)))
    assert {stage for stage, _ in told} == {"probes"}
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1], len(shares)) == (0.0, 1.0, 12)


def test_an_interrupted_build_goes_on_where_it_stopped(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    def stop(stage: str, share: float) -> None:
        if share > 0.5:
            raise GoneError

    with pytest.raises(GoneError):
        build_probes(library, base, cache, stop)
    assert len(files(cache)) == 6
    encodings.clear()
    build_probes(library, base, cache)
    assert sum(encodings) == 5 * ProbePlan().rows


def test_a_full_disk_leaves_no_half_cache(
    library: ConceptLibrary,
    base: BaseModel,
    small_disk: Path,
    fill_disk: Callable[[Path], Path],
    encodings: Encodings,
) -> None:
    ballast = fill_disk(small_disk)
    with pytest.raises(NoDecisionError, match="No space left") as error:
        build_probes(library, base, small_disk / "probes")
    assert error.value.reason is ErrorReason.DISK_FULL
    assert [*small_disk.glob("**/*.safetensors"), *small_disk.glob("**/*.partial")] == []
    ballast.unlink()
    build_probes(library, base, small_disk / "probes")
    encodings.clear()
    build_probes(library, base, small_disk / "probes")
    assert encodings == []


def test_a_write_that_fails_half_way_is_removed(
    library: ConceptLibrary, base: BaseModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(tensors: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"\x10")
        raise OSError("gone")

    monkeypatch.setattr(cache_module, "save_file", torn)
    with pytest.raises(NoDecisionError, match="gone"):
        build_probes(library, base, cache)
    assert list(cache.iterdir()) == []


def test_servers_with_one_process_number_share_a_cache(
    library: ConceptLibrary, base: BaseModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    made: list[int] = []
    together = threading.Barrier(4)

    def make(number: int) -> dict[str, Tensor]:
        made.append(number)
        return {"latents": torch.full((64, 64), float(number))}

    def server(_: int) -> list[dict[str, Tensor]]:
        shared = cache_module.TensorCache(cache, "probes", base, "x")
        together.wait()
        return shared.each([str(number) for number in range(20)], make, silent)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(server, range(4)):
            assert [float(each["latents"][0, 0]) for each in found] == [*range(20)]
    assert sorted(made) == [*range(20)], "none of them was made twice"
    assert len(files(cache)) == 20


def test_a_server_that_waits_for_another_can_be_stopped(
    library: ConceptLibrary, base: BaseModel, cache: Path, encodings: Encodings
) -> None:
    build_probes(library, base, cache)
    (missing := min(files(cache))).unlink()
    encodings.clear()
    asked: list[float] = []

    def stop_at_the_third(stage: str, share: float) -> None:
        asked.append(share)
        if len(asked) == 3:
            raise GoneError

    with missing.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(GoneError):
            build_probes(library, base, cache, stop_at_the_third)
    assert encodings == []
    build_probes(library, base, cache)
    assert encodings, "the lock went with whoever held it"
    assert not list(cache.glob("*.lock"))


def test_pictures_that_changed_under_an_open_library_stop_the_build(
    library: ConceptLibrary, base: BaseModel, cache: Path, draw: Callable[..., bytes]
) -> None:
    library.get("neutral-8").picture_files[0].write_bytes(draw(888))
    with pytest.raises(NoDecisionError, match="has changed"):
        build_probes(library, base, cache)
    assert len(files(cache)) == 10


def test_probes_of_a_flow_model_have_the_flow_as_target(
    library: ConceptLibrary, cache: Path
) -> None:
    base = tiny_base("flux")
    probes = build_probes(library, base, cache, plan=ProbePlan(pictures=1, times=(0.25,)))
    assert probes.noisy.isfinite().all()
    pictures = load_pictures(probes.concepts[0], base.picture_size, 1)
    with torch.inference_mode():
        latents = base.encode_pictures(pictures)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2504))
        expected = base.target(latents, noise, torch.tensor([0.25]))
    torch.testing.assert_close(probes.target[0], expected)
