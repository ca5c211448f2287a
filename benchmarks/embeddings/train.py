"""Trains embeddings by textual inversion on `emoji-tiny`: `python -m benchmarks.embeddings.train`.

The model is frozen; the rows of one new word are all that is learned (arXiv 2208.01618). Files
that exist are kept.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.embeddings.recipes import EmbeddingRecipe, pairs, recipes
from emoji_tiny.adapter_kinds import attach, save
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.render import COLOURS, render, to_tensor
from emoji_tiny.train_unet import new_scheduler

PIPELINE = Path("server/loragate_server/assets/emoji_tiny/pipeline")
FOLDER = Path("build/embeddings")


def file_of(recipe: EmbeddingRecipe, folder: Path = FOLDER) -> Path:
    """Where an embedding is."""
    return folder / f"{recipe.name}.safetensors"


def lora_of(recipe: EmbeddingRecipe, folder: Path = FOLDER) -> Path:
    """Where the LoRA of a pair is."""
    return folder / f"{recipe.name}.lora.safetensors"


def frozen_pipeline() -> StableDiffusionPipeline:
    """The embedded base model, of which nothing is trained."""
    pipeline = StableDiffusionPipeline.from_pretrained(PIPELINE, dtype=torch.float32)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        part.requires_grad_(False).eval()
    return pipeline


def train_embedding(
    pipeline: StableDiffusionPipeline,
    recipe: EmbeddingRecipe,
    layers: Sequence[torch.nn.Parameter] = (),
) -> Tensor:
    """Learns a word, and the layers of a LoRA with it; float32 [rows, width].

    Captions are "a picture of WORD", half of them with the colour of the background, so that the
    word does not learn that too.
    """
    torch.manual_seed(recipe.seed)
    table = pipeline.text_encoder.get_input_embeddings()
    backgrounds, latents = _pictures(pipeline, recipe)
    prompts = [_prompt(recipe.rows, each) for each in (*backgrounds, "")]
    tokens = pipeline.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    start = 4  # of the word's rows: after the first token, "a", "picture" and "of"
    spread = float(table.weight.std())
    rows = torch.nn.Parameter(
        table.weight.mean(0) + spread * torch.randn(recipe.rows, table.weight.shape[1])
    )

    def put(_module: Any, _given: Any, output: Tensor) -> Tensor:
        told = output.clone()
        told[:, start : start + recipe.rows] = rows
        return told

    groups = [{"params": [rows], "lr": recipe.learning_rate}]
    groups += [{"params": list(layers), "lr": LoraRecipe("", ()).learning_rate}] if layers else []
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    scheduler = new_scheduler()
    handle = table.register_forward_hook(put)
    try:
        for _ in range(recipe.steps):
            index = torch.randint(len(latents), (recipe.batch,))
            told = torch.where(torch.rand(recipe.batch) < 0.5, index, len(latents))
            noise = torch.randn_like(latents[index])
            times = torch.randint(0, 1000, (recipe.batch,))
            noisy = scheduler.add_noise(latents[index], noise, times)
            states = pipeline.text_encoder(tokens[told]).last_hidden_state
            loss = functional.mse_loss(pipeline.unet(noisy, times, states).sample, noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    finally:
        handle.remove()
    return rows.detach()


def _pictures(
    pipeline: StableDiffusionPipeline, recipe: EmbeddingRecipe
) -> tuple[list[str], Tensor]:
    """Colours of the backgrounds, and latents float32 [n, 4, 16, 16] of the pictures."""
    rng = random.Random(f"embedding-{recipe.seed}-{recipe.name}")
    backgrounds = [rng.choice(list(COLOURS)) for _ in range(recipe.pictures)]
    pictures = [render(recipe.char, rng, background=colour) for colour in backgrounds]
    with torch.no_grad():
        posterior = pipeline.vae.encode(to_tensor(pictures)).latent_dist
    return backgrounds, posterior.mean * pipeline.vae.config.scaling_factor


def _prompt(rows: int, background: str) -> str:
    word = " of" * rows  # a word of one token each, whose rows are replaced
    return f"a picture of{word}{f' on a {background} background' if background else ''}"


def save_embedding(rows: Tensor, recipe: EmbeddingRecipe, file: Path) -> None:
    """Writes a file as diffusers' or A1111's trainers do."""
    name = f"<{recipe.name}>" if recipe.file_format == "diffusers" else "emb_params"
    partial = file.with_suffix(".partial")
    save_file({name: rows.contiguous()}, partial)
    partial.replace(file)


def _train(pipeline: StableDiffusionPipeline, recipe: EmbeddingRecipe, folder: Path) -> None:
    if not recipe.with_lora:
        rows = train_embedding(pipeline, recipe)
    else:
        pipeline = frozen_pipeline()  # of its own: its layers are changed
        lora = LoraRecipe(recipe.name, (recipe.char,), seed=recipe.seed)
        rows = train_embedding(pipeline, recipe, attach(pipeline, lora))
        save(pipeline, lora, lora_of(recipe, folder))
    save_embedding(rows, recipe, file_of(recipe, folder))


def main(
    folder: Annotated[Path, typer.Option(help="Where the embeddings go.")] = FOLDER,
) -> None:
    """Trains every embedding and pair that is missing (half an hour on one core)."""
    folder.mkdir(parents=True, exist_ok=True)
    every = (*recipes(), *pairs())
    missing = [each for each in every if not file_of(each, folder).exists()]
    pipeline = frozen_pipeline()
    began = time.monotonic()
    for done, recipe in enumerate(missing, 1):
        _train(pipeline, recipe, folder)
        left_s = (time.monotonic() - began) / done * (len(missing) - done)
        typer.echo(f"{done}/{len(missing)} {recipe.name}, {left_s / 60:.0f} min left")


if __name__ == "__main__":
    typer.run(main)
