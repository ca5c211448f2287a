"""Base models at their published sizes: random weights, or none at all on the device `meta`.

Sizes are those of the configurations that were published with the weights; no weights are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

from loragate_server.models.base import BaseModel
from loragate_server.models.loading import FAMILIES
from testkit.tiny_models import tiny_tokenizer

CLIP_TOKENS = 77


def published(name: str, device: str, size: int | None = None) -> BaseModel:
    """A base model in bfloat16, with random weights.

    Args:
        name: one of `NAMES`.
        device: "cpu", or "meta", which computes nothing and takes no memory.
        size: height and width of pictures in pixels; the model's own when None.
    """
    make, own_size = _MAKERS[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        pipeline = make(torch.device(device))
    finally:
        torch.set_default_dtype(before)
    side = size or own_size
    kind = FAMILIES[type(pipeline).__name__]
    return kind(pipeline, name, "0" * 64, picture_size=(side, side))


def _clip(with_projection: bool, width: int, inner: int, layers: int, heads: int) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    kind = (
        transformers.CLIPTextModelWithProjection if with_projection else transformers.CLIPTextModel
    )
    return kind(config)


def _clip_l(with_projection: bool = False) -> Any:
    return _clip(with_projection, 768, 3072, 12, 12)


def _clip_g() -> Any:
    return _clip(True, 1280, 5120, 32, 20)


def _t5_xxl() -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def _vae(channels: int, **options: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        **options,
    )


def _betas() -> Any:
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _sd15(device: torch.device) -> Any:
    with device:
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        )
        vae, encoder = _vae(4), _clip_l()
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tiny_tokenizer(CLIP_TOKENS),
        unet=unet,
        scheduler=_betas(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(device: torch.device) -> Any:
    with device:
        unet = diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        vae, encoder, second = _vae(4, scaling_factor=0.13025), _clip_l(), _clip_g()
    return diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoder,
        text_encoder_2=second,
        tokenizer=tiny_tokenizer(CLIP_TOKENS),
        tokenizer_2=tiny_tokenizer(CLIP_TOKENS),
        unet=unet,
        scheduler=_betas(),
        add_watermarker=False,
    )


def _sd35(device: torch.device, layers: int, positions: int, dual: int) -> Any:
    with device:
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=128,
            num_layers=layers,
            num_attention_heads=layers,
            caption_projection_dim=64 * layers,
            pos_embed_max_size=positions,
            dual_attention_layers=tuple(range(dual)),
            qk_norm="rms_norm",
        )
        vae = _vae(16, shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False)
        encoders = _clip_l(with_projection=True), _clip_g(), _t5_xxl()
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tiny_tokenizer(CLIP_TOKENS),
        text_encoder_2=encoders[1],
        tokenizer_2=tiny_tokenizer(CLIP_TOKENS),
        text_encoder_3=encoders[2],
        tokenizer_3=tiny_tokenizer(256),
    )


def _flux(device: torch.device) -> Any:
    with device:
        transformer = diffusers.FluxTransformer2DModel(guidance_embeds=True)
        vae = _vae(16, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False)
        encoder, second = _clip_l(), _t5_xxl()
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tiny_tokenizer(CLIP_TOKENS),
        text_encoder_2=second,
        tokenizer_2=tiny_tokenizer(512),
        transformer=transformer,
    )


_MAKERS: dict[str, tuple[Callable[[torch.device], Any], int]] = {
    "SD 1.5": (_sd15, 512),
    "SDXL": (_sdxl, 1024),
    "SD 3.5 medium": (lambda device: _sd35(device, 24, 384, 13), 1024),
    "SD 3.5 large": (lambda device: _sd35(device, 38, 192, 0), 1024),
    "Flux": (_flux, 1024),
}
NAMES = tuple(_MAKERS)
