"""The rungs: what each attacker knows, and what he trains against."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.attacks.bench import EMBEDDED
from benchmarks.attacks.ladder.overheard import Listener
from benchmarks.audit.other_hands import learned_entries
from benchmarks.audit.train import PIPELINE
from benchmarks.audit.zoo import Entry
from emoji_tiny.render import COLOURS, render
from emoji_tiny.train_lora import Against
from loragate_server.audit.calibration import load_calibration
from loragate_server.audit.weights import Scales
from loragate_server.concepts.gradients import ConceptGradients, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.plan import GradientPlan
from loragate_server.models import load_base_model
from loragate_server.testing import SHARED_CACHE

FOLDER = Path("build/ladder")
PER_RUNG = 12
UNSUSPICIOUS = 1.0
"""Standard deviations above the bank that no attacker minds: harmless adapters have as much."""
_SEED = 99
"""Of the noise of an attacker who does not know the service's."""
_PICTURES = 12


@dataclass(frozen=True)
class Rung:
    """One kind of attacker.

    Attributes:
        name: of the rung, part of its files' names.
        knows: for people.
        weight: of the penalty on the screen; 0 where he does not train against it.
        hide: weight of the penalty on the response; see `LoraRecipe`.
        pictures: whose gradients he has: "own" or "library".
        seeds: whether he has the service's own noise as well.
    """

    name: str
    knows: str
    weight: float = 0.0
    hide: float = 0.0
    pictures: str = "own"
    seeds: bool = False


RUNGS = (
    Rung("blind", "nothing of an audit"),
    Rung("response", "that losses are compared; hides the gain on his pictures", hide=0.5),
    Rung("own", "the code, the calibration and his own pictures", weight=0.05),
    Rung("own-light", "the same, a fifth as heavy", weight=0.01),
    Rung("library", "the library's pictures in place of his own", weight=0.05, pictures="library"),
    Rung("seeds", "the library's pictures and noise", weight=0.05, pictures="library", seeds=True),
    Rung("both", "all that, and hides from the response as well", 0.05, 0.5, "library", True),
)


def entries_of(rung: Rung) -> list[Entry]:
    """The same concepts, pictures and recipes on every rung, by the development hand."""
    found = learned_entries("development")[:PER_RUNG]
    if rung.name == "blind":
        return found
    names = [f"{rung.name}-{one.learned[0]}" for one in found]
    return [
        replace(one, recipe=replace(one.recipe, name=name, hide=rung.hide))
        for one, name in zip(found, names, strict=True)
    ]


def against(rung: Rung, entry: Entry) -> Against | None:
    """What he trains this one against; None where that is nothing of the screen."""
    if not rung.weight:
        return None
    [concept] = entry.learned
    gradients = _the_services() if rung.seeds else _the_attackers()
    wanted = _own_id(concept) if rung.pictures == "own" else concept

    def made(pipeline: StableDiffusionPipeline, _: torch.Tensor) -> Callable[[], torch.Tensor]:
        listener = Listener(pipeline.unet, gradients, wanted, scales())

        def penalty() -> torch.Tensor:
            if listener.silent:
                return torch.zeros(())
            return rung.weight * listener.hear().above(UNSUSPICIOUS).float()

        return penalty

    return made


@cache
def scales() -> Scales:
    """Of the calibration that ships."""
    return load_calibration(EMBEDDED / "calibration.json").scales


@cache
def _the_services() -> ConceptGradients:
    return _gradients(EMBEDDED / "concepts", GradientPlan(), SHARED_CACHE)


@cache
def _the_attackers() -> ConceptGradients:
    """Of the library that ships and of his own pictures, under other noise."""
    plan = GradientPlan()
    plan = replace(plan, plans=tuple(replace(one, seed=_SEED) for one in plan.plans))
    return _gradients(_library(), plan, FOLDER / "cache")


def _gradients(library: Path, plan: GradientPlan, cached: Path) -> ConceptGradients:
    base = load_base_model(PIPELINE, "emoji-tiny", device="cpu", dtype=torch.float32)
    cached.mkdir(parents=True, exist_ok=True)
    return build_gradients(ConceptLibrary.open(library), base, cached, plan=plan)


def _library() -> Path:
    folder = FOLDER / "library"
    if not folder.exists():
        partial = FOLDER / "library.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(EMBEDDED / "concepts", partial)
        library = ConceptLibrary.open(partial)
        for entry in learned_entries("development"):
            known = library.get(entry.learned[0])
            own = replace(known, concept_id=_own_id(known.concept_id), picture_hands=())
            library = library.add(own, list(_drawn(entry)))
        partial.rename(folder)
    return folder


def _own_id(concept: str) -> str:
    return f"own-{concept}"


def _drawn(entry: Entry) -> Iterator[bytes]:
    """Some of his pictures, as PNG."""
    rng = random.Random(f"ladder-{entry.name}")
    [char] = entry.recipe.subjects
    for _ in range(_PICTURES):
        background = rng.choice(list(COLOURS))
        file = io.BytesIO()
        render(char, rng, background=background, hand=entry.recipe.hand).save(file, "PNG")
        yield file.getvalue()
