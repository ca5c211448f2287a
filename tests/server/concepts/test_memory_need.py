"""Memory of gradients: predicted from shapes, held against what is taken, refused in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor, nn
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.concepts.building import builder, dense, lean
from loragate_server.concepts.building.builder import Builder
from loragate_server.concepts.building.memory.live import LiveBytes, bytes_of
from loragate_server.concepts.building.memory.need import (
    Need,
    Shapes,
    dense_need,
    lean_need,
    needed_bytes,
)
from loragate_server.concepts.building.memory.room import free_bytes
from loragate_server.concepts.building.memory.twin import twin_of
from loragate_server.concepts.building.sketch import Widths
from loragate_server.concepts.building.stratum import Rows, layers_of
from loragate_server.concepts.gradients import GradientPlan, LeanPlan, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, build_probes
from loragate_server.config.gradients import GradientsSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models import BaseModel
from loragate_server.progress import at_once, silent
from testkit.tiny_models import FAMILIES, tiny_base

LATENT = (4, 8, 8)
WIDTHS = Widths(16, 60)
PROBES = ProbePlan(pictures=4, times=(0.2,), neutral=9)
MORE_THAN_ANY_MACHINE = 1 << 55


def rows_of(count: int) -> Rows:
    noisy, target = (torch.randn(count, *LATENT) for _ in range(2))
    return Rows("cat", 0.3, "a picture", noisy, target, torch.full((count,), 0.3))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prediction_is_what_tensors_really_take(family: str) -> None:
    base = tiny_base(family)
    shapes = Shapes.of(base, LATENT, 4, 0)
    weights = bytes_of(base.denoiser, *base.beside().values())
    for name, need in (("dense", dense_need(shapes)), ("lean", lean_need(shapes, WIDTHS, 2))):
        with LiveBytes() as live:
            if name == "dense":
                dense.of_rows(base, rows_of(4), 2)
            else:
                lean.of_rows(base, rows_of(4), 2, WIDTHS, 2)
        assert need.peak == pytest.approx(weights + live.peak, rel=0.1), name


def test_the_twin_is_predicted_without_any_memory_of_the_device() -> None:
    shapes = Shapes.of(tiny_base("sdxl"), LATENT, 4, 0)
    assert all(weight.is_meta for weight in shapes.twin.denoiser.parameters())
    assert not any(weight.is_meta for weight in shapes.base.denoiser.parameters())


def test_the_layers_of_the_twin_are_its_own_though_those_of_the_base_model_are_remembered() -> None:
    base = tiny_base("sd")
    remembered = layers_of(base)
    own = layers_of(twin_of(base))
    assert own.keys() == {ref for ref in remembered if ref.component == base.denoiser_component}
    assert all(layer.weight.is_meta for layer in own.values())
    assert layers_of(base) == remembered


def test_the_lean_way_needs_less_and_every_row_as_much_as_another() -> None:
    shapes = Shapes.of(tiny_base("sdxl"), LATENT, 12, 0)
    one, two, four = (lean_need(shapes, WIDTHS, rows).passes for rows in (1, 2, 4))
    assert four - one == pytest.approx(3 * (two - one), rel=0.02)
    assert one < four < dense_need(shapes).passes / 2


def test_the_machine_says_how_much_is_free() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is not None
    assert 1 << 20 < free < 1 << 50


def builder_of(
    library: ConceptLibrary,
    base: BaseModel,
    folder: Path,
    settings: GradientsSection,
    plan: GradientPlan | None = None,
) -> Builder:
    probes = [build_probes(library, base, folder, silent, PROBES)]
    return Builder(base, probes, settings, at_once, plan)


def test_the_kind_follows_from_the_model_alone(library: ConceptLibrary, tmp_path: Path) -> None:
    base = tiny_base("sd")
    need = dense_need(Shapes.of(base, LATENT, PROBES.pictures, 0)).peak
    for limit, kind in ((need, GradientPlan), (need - 1, LeanPlan)):
        settings = GradientsSection(dense_bytes=limit)
        assert type(builder_of(library, base, tmp_path, settings).plan) is kind
    assert type(builder_of(library, base, tmp_path, GradientsSection()).plan) is GradientPlan
    chosen = builder_of(library, base, tmp_path, GradientsSection(kind="lean"))
    assert type(chosen.plan) is LeanPlan


def test_fewer_rows_go_at_once_where_memory_is_short(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    plan = LeanPlan((PROBES,), 2, WIDTHS)
    every = builder_of(library, base, tmp_path, GradientsSection(), plan).needs()
    assert [need.rows for need in every] == [4, 3, 2, 1]
    for need in (every[0], every[-1]):
        settings = GradientsSection(memory_bytes=needed_bytes(need, base.device))
        assert builder_of(library, base, tmp_path, settings, plan).fitting() == need


def test_what_does_not_fit_is_refused_with_the_figure_before_anything_is_made(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    base = tiny_base("sdxl")
    settings = GradientsSection(memory_bytes=1 << 23)
    with pytest.raises(NoDecisionError) as told:
        build_gradients(library, base, tmp_path, silent, settings=settings)
    error = told.value
    assert error.reason is ErrorReason.OUT_OF_MEMORY
    assert "of cpu at their peak, and 0.0 GB are there: 0.0 GB are weights" in error.message
    assert "`gradients.kind: lean`" in error.remedy
    assert "bfloat16" in error.remedy
    assert int(error.metadata["needed_bytes"]) > int(error.metadata["free_bytes"]) == 1 << 23
    assert not list(tmp_path.glob("gradients-*.safetensors"))


def test_the_command_refuses_it_with_exit_code_3(library: ConceptLibrary, tmp_path: Path) -> None:
    settings = {
        "state_dir": str(tmp_path / "state"),
        "library": str(library.folder),
        "gradients": {"memory_bytes": 2**20},
    }
    YAML(typ="safe").dump(settings, tmp_path / "loragate.yaml")
    done = CliRunner(env={"COLUMNS": "400"}).invoke(
        application, ["concepts", "build", "--config", str(tmp_path / "loragate.yaml")]
    )
    assert done.exit_code == 3, done.output
    assert "at their peak, and 0.0 GB are there" in done.output


@contextmanager
def rooms_for_one_row(layer: nn.Module) -> Iterator[None]:
    """Inside it, the layer asks torch for more than there is where it is given several rows."""

    def grab(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) > 1:
            torch.empty(MORE_THAN_ANY_MACHINE)

    handle = layer.register_forward_pre_hook(grab)
    try:
        yield
    finally:
        handle.remove()


def test_where_the_prediction_was_wrong_half_the_rows_go_at_once(
    library: ConceptLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny_base("sd")
    plan = LeanPlan((PROBES,), 2, WIDTHS)
    builder = builder_of(library, base, tmp_path, GradientsSection(), plan)
    builder.needs()
    with rooms_for_one_row(base.denoiser.conv_in), caplog.at_level(logging.WARNING):
        made = builder.make(0)
    assert [record.args for record in caplog.records] == [("tiny-sd", 2), ("tiny-sd", 1)]
    wanted = builder_of(library, base, tmp_path, GradientsSection(rows_at_once=1), plan).make(0)
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_a_model_that_does_not_run_without_numbers_is_built_with_a_warning(
    library: ConceptLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny_base("sd")
    base.denoiser.conv_out.__class__ = LooksAtNumbers
    builder = builder_of(library, base, tmp_path, GradientsSection(), None)
    made = builder.make(0)
    assert type(builder.plan) is GradientPlan
    assert made
    assert "nobody can tell what memory they take" in caplog.text


class LooksAtNumbers(nn.Conv2d):
    """A layer that does not run where there are shapes alone."""

    def forward(self, given: Tensor) -> Tensor:
        assert given.detach().isfinite().all().item()
        return super().forward(given)


def test_what_the_kind_is_chosen_by_is_predicted_once_for_all_servers_of_a_folder(
    library: ConceptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base("sd")
    probes = [build_probes(library, base, tmp_path, silent, PROBES)]

    def chosen(limit: int) -> type:
        settings = GradientsSection(dense_bytes=limit)
        return type(Builder(base, probes, settings, at_once, folder=tmp_path).plan)

    assert chosen(1 << 40) is GradientPlan
    [kept] = tmp_path.glob("need-*.txt")
    with monkeypatch.context() as patch:
        patch.setattr(builder, "dense_need", _never)
        assert chosen(1 << 40) is GradientPlan
        assert chosen(1) is LeanPlan, "a setting that changes is followed"
        base.denoiser.half()
        with pytest.raises(AssertionError, match="another model"):
            chosen(1)
        base.denoiser.float()
    kept.write_text("many")
    assert chosen(1 << 40) is GradientPlan
    assert int(kept.read_text()) == builder.dense_need(Shapes.of(base, LATENT, 4, 0)).peak


def _never(shapes: Shapes) -> Need:
    raise AssertionError("another model", shapes.rows)
