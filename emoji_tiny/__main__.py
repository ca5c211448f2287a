"""Command line of the training scripts: `python -m emoji_tiny --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emoji_tiny import recipes
from emoji_tiny.assemble import assemble_library, assemble_pipeline
from emoji_tiny.catalogue import all_emoji, name_of, split
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.sheet import draw_adapter_sheet, draw_base_sheet
from emoji_tiny.train_lora import STYLES, train_lora
from emoji_tiny.train_unet import Phase, train_unet
from emoji_tiny.train_vae import train_decoder, train_vae

ASSETS = Path(__file__).parent.parent / "server" / "loragate_server" / "assets" / "emoji_tiny"
BUILD = Path("build") / "emoji_tiny"

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

Out = Annotated[Path, typer.Option(help="Folder of the unfinished and finished parts.")]


@app.command()
def base(
    out: Out = BUILD,
    vae_steps: int = 2000,
    unet_steps: int = 2000,
    focus_steps: int = 1500,
    finish_steps: int = 4500,
    decoder_steps: int = 1200,
    seed: int = 0,
) -> None:
    """Trains VAE, text encoder and UNet (two hours on two cores; resumes when interrupted)."""
    train_vae(out, steps=vae_steps, batch=8, seed=seed, copies=6)
    phases = [
        Phase("unet", split().train, unet_steps, copies=20),
        Phase("focus", split().focus, focus_steps, copies=60),
        Phase("finish", split().focus, finish_steps, copies=60),
    ]
    train_unet(out, phases, batch=24, seed=seed)
    train_decoder(out, steps=decoder_steps, batch=8, seed=seed, copies=6)


@app.command()
def assemble(out: Out = BUILD, assets: Path = ASSETS) -> None:
    """Writes the fp16 pipeline and the concept library that ship with the server."""
    assemble_pipeline(out, assets / "pipeline")
    assemble_library(assets / "concepts")


@app.command()
def examples(
    pipeline: Path = ASSETS / "pipeline", out: Path = Path("examples") / "adapters"
) -> None:
    """Trains the example adapters; files that exist are kept."""
    train_all(recipes.shipped(), pipeline, out)


@app.command()
def sheets(
    pipeline: Path = ASSETS / "pipeline",
    adapters: Path = Path("examples") / "adapters",
    out: Path = Path("docs") / "pictures",
) -> None:
    """Draws the contact sheets of the documentation: the base, and the base beside each adapter."""
    draw_base_sheet(pipeline, out / "emoji-tiny.png")
    draw_adapter_sheet(pipeline, adapters, recipes.shipped(), out / "adapters.png")


@app.command()
def lora(
    subjects: Annotated[list[str], typer.Argument(help="Emoji characters or Unicode names.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    pipeline: Path = ASSETS / "pipeline",
    rank: int = 8,
    alpha: float = 8.0,
    target: Annotated[list[str] | None, typer.Option(help="Target modules.")] = None,
    steps: int = 300,
    batch: int = 8,
    learning_rate: float = 2e-3,
    style: Annotated[str, typer.Option(help=f"One of {', '.join(STYLES)}.")] = "plain",
    file_format: Annotated[str, typer.Option(help="diffusers or kohya.")] = "diffusers",
    seed: int = 0,
) -> None:
    """Trains one adapter, for example: `lora dragon --out dragon.safetensors --rank 4`."""
    by_name = {name_of(char): char for char in all_emoji()}
    chars = []
    for subject in subjects:
        char = by_name.get(subject.lower(), subject)
        if char not in all_emoji():
            raise typer.BadParameter(f"{subject!r} is no emoji of the font; try a Unicode name")
        chars.append(char)
    recipe = LoraRecipe(
        out.stem,
        tuple(chars),
        style=style,
        rank=rank,
        alpha=alpha,
        target_modules=tuple(target or ()),
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        file_format=file_format,
    )
    loss = train_lora(pipeline, recipe, out)
    typer.echo(f"{out}: mean loss of the last steps {loss:.4f}")


def train_all(todo: list[LoraRecipe], pipeline: Path, out: Path) -> None:
    """Trains every recipe whose file does not exist yet."""
    for recipe in todo:
        path = out / f"{recipe.name}.safetensors"
        if not path.exists():
            loss = train_lora(pipeline, recipe, path)
            typer.echo(f"{path}: mean loss of the last steps {loss:.4f}")


if __name__ == "__main__":
    app()
