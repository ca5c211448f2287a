"""A base model draws each picture once, in any precision, and nothing blank."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from PIL import Image

from loragate_server.models import from_pipeline
from loragate_server.models.base import BaseModel
from loragate_server.models.pipeline import PipelineModel
from loragate_server.trials.drawing import Artist, DrawingSettings
from loragate_server.trials.errors import TrialError
from testkit.tiny_models import FAMILIES, tiny_base, tiny_pipeline

FAST = DrawingSettings(steps=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_and_draws_the_same_again(family: str, tmp_path: Path) -> None:
    base = tiny_base(family)
    artist = Artist(base, tmp_path, FAST)
    files = [artist.picture("a picture of cat", index) for index in (0, 1, 0)]
    assert files[0] == files[2] != files[1]
    with Image.open(files[0]) as drawn:
        assert (drawn.size, drawn.mode) == ((16, 16), "RGB")
    again = Artist(tiny_base(family), tmp_path / "again", FAST).picture("a picture of cat")
    assert again.read_bytes() == files[0].read_bytes()
    assert len(list(tmp_path.rglob("*.png"))) == 3


def test_settings_and_prompts_give_pictures_of_their_own(tmp_path: Path) -> None:
    base = tiny_base("sd")
    artists = [
        Artist(base, tmp_path, settings)
        for settings in (FAST, DrawingSettings(2, seed=1), DrawingSettings(2, 3.0))
    ]
    files = {artist.picture(prompt) for artist in artists for prompt in ("a cat", "a dog")}
    assert len(files) == 6


def test_a_vae_in_whole_precision_draws_for_a_denoiser_in_half(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sdxl").to(torch.float16)
    base = from_pipeline(pipeline, "half", picture_size=(16, 16))
    assert isinstance(base, PipelineModel)
    vae = base.pipeline.vae
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    assert vae.dtype == torch.float32
    Artist(base, tmp_path, FAST).picture("a cat")
    assert (vae.dtype, "decode" in vars(vae)) == (torch.float32, False)
    assert all(torch.equal(vae.state_dict()[name], value) for name, value in before.items())


def test_blank_pictures_are_refused_with_what_to_do(tmp_path: Path) -> None:
    base = tiny_base("sd")
    assert isinstance(base, PipelineModel)
    decoder = base.pipeline.vae.decoder.conv_out
    torch.nn.init.zeros_(decoder.weight)
    torch.nn.init.zeros_(decoder.bias)
    with pytest.raises(TrialError, match=r"3 blank pictures of 'a cat'.* --nouns"):
        Artist(base, tmp_path, FAST).picture("a cat")
    assert not list(tmp_path.rglob("*.png"))


def test_what_has_no_pipeline_cannot_draw(tmp_path: Path) -> None:
    other = cast(BaseModel, SimpleNamespace(name="other"))
    with pytest.raises(TrialError, match="has no pipeline to draw with"):
        Artist(other, tmp_path)
