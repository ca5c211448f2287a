"""Gradients that cannot be made: which layer, which concept, and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from loragate_server.cli.command import application
from loragate_server.concepts.gradients import GradientPlan, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan
from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models import BaseModel
from loragate_server.progress import silent
from testkit.tiny_models import tiny_base

PLAN = GradientPlan((ProbePlan(pictures=2, times=(0.2,), neutral=9),), rank=2)
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
MORE_THAN_ANY_MACHINE = 1 << 55


@pytest.fixture
def base() -> BaseModel:
    return tiny_base("sd")


@contextmanager
def hungry(module: nn.Module) -> Iterator[None]:
    """Inside it, the module asks for more memory than there is, of torch itself."""
    handle = module.register_forward_hook(lambda *_: torch.empty(MORE_THAN_ANY_MACHINE))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_names_layer_concept_and_time(
    library: ConceptLibrary, base: BaseModel, tmp_path: Path, value: float
) -> None:
    with torch.no_grad():
        base.denoiser.get_submodule(LAYER).weight[0, 0] = value
    with pytest.raises(NoDecisionError) as told:
        build_gradients(library, base, tmp_path, silent, PLAN)
    error = told.value
    assert error.reason is ErrorReason.AUDIT_FAILED
    assert error.metadata["concept"] == library.forbidden[0].concept_id
    assert error.metadata["layer"].startswith("unet.")
    assert error.metadata["layer"] in error.message
    assert f"concept {library.forbidden[0].concept_id} at time 0.2" in error.message
    assert not list(tmp_path.glob("gradients-*.safetensors")), "nothing of it may be kept"
    assert not any(weight.requires_grad for weight in base.denoiser.parameters())


def test_half_precision_is_told_to_be_left_where_its_numbers_end(
    library: ConceptLibrary, base: BaseModel, tmp_path: Path
) -> None:
    base.denoiser.half()
    base.components["text_encoder"].half()
    with torch.no_grad():
        base.denoiser.get_submodule("conv_out").weight.fill_(60000.0)
    with pytest.raises(NoDecisionError, match="dtype: bfloat16"):
        build_gradients(library, base, tmp_path, silent, PLAN)


def test_no_memory_left_is_a_sentence_with_a_remedy(
    library: ConceptLibrary, base: BaseModel, tmp_path: Path
) -> None:
    with hungry(base.denoiser), pytest.raises(NoDecisionError) as told:
        build_gradients(library, base, tmp_path, silent, PLAN)
    error = told.value
    assert error.reason is ErrorReason.OUT_OF_MEMORY
    assert f"on cpu for the gradients of concept {library.forbidden[0].concept_id}" in error.message
    assert "gradients.kind" in error.remedy
    # the model is as before: what failed can be tried again
    build_gradients(library, base, tmp_path, silent, PLAN)


def test_the_command_ends_with_3_and_the_layer_of_a_broken_model(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    pipeline = shutil.copytree(EMBEDDED_PIPELINE, tmp_path / "pipeline")
    [weights] = (pipeline / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["conv_out.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    done = build(tmp_path, library, pipeline)
    assert done.exit_code == 3, done.output
    assert "layer unet." in done.output
    assert f"is not finite for concept {library.forbidden[0].concept_id}" in done.output


def build(tmp_path: Path, library: ConceptLibrary, pipeline: Path) -> Result:
    """`loragate-server concepts build` of a library on a base model."""
    file = tmp_path / "loragate.yaml"
    settings = {
        "state_dir": str(tmp_path / "state"),
        "library": str(library.folder),
        "base_models": [{"name": "one", "folder": str(pipeline)}],
    }
    YAML(typ="safe").dump(settings, file)
    return CliRunner(env={"COLUMNS": "400"}).invoke(
        application, ["concepts", "build", "--config", str(file)]
    )
