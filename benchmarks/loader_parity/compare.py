"""What the installed diffusers and peft make of a file, beside what our rules say they do."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.loader_parity.files import AdapterFile
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.reference import StoredFile
from loragate_server.errors import NoDecisionError
from loragate_server.intake.reader import read_adapter
from loragate_server.models.apply import layer_shape
from testkit.tiny_models import tiny_base, tiny_pipeline

Deltas = Mapping[ModuleRef, Tensor]

VOUCHED, REFUSED, NOT_VOUCHED = "equal", "both refuse", "not vouched for"
_NAME = "a"


class DisagreementError(AssertionError):
    """The rule says something else than the library does."""


def compare(family: str, loader: str, made: AdapterFile) -> str:
    """How the rule and the library agree on one file.

    Returns:
        VOUCHED where both load the same; REFUSED where our rule refuses and the library raises or
        changes nothing; NOT_VOUCHED where the rule
        says that it cannot tell, which is never an ALLOW.

    Raises:
        DisagreementError: they do not agree.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter_model.safetensors"
        save_file({n: t.contiguous() for n, t in made.tensors.items()}, path, made.header)
        text = None
        if made.config is not None:
            text = json.dumps(made.config)
            (path.parent / "adapter_config.json").write_text(text)
        ours = _by_our_rule(family, loader, path, text)
        if ours is None:
            return NOT_VOUCHED
        load = _by_diffusers if loader == "diffusers" else _by_peft
        theirs = _quietly(load, family, path)
    if isinstance(theirs, Exception) or isinstance(ours, str):
        if isinstance(ours, str) and (isinstance(theirs, Exception) or _without_effect(theirs)):
            return REFUSED
        raise DisagreementError(f"ours: {ours!r:.300}; theirs: {theirs!r:.300}")
    _require_equal(ours, theirs)
    return VOUCHED


def _by_our_rule(family: str, loader: str, path: Path, config: str | None) -> Deltas | str | None:
    """The deltas, a refusal, or None where the rule cannot tell."""
    base = tiny_base(family)
    stored = StoredFile("0" * 64, path.stat().st_size, path, config)
    try:
        with no_noise():
            found = read_adapter(stored, base, loaders=(loader,))
    except NoDecisionError as error:
        return str(error)
    if found.refused:
        return found.refused[loader]
    reading = next((one for one in found.adapters if loader in one.loaders), None)
    if found.doubts or reading is None or not reading.coverage.complete:
        return None
    layers = base.adaptable_modules()
    return {
        ref: delta.dense(layer_shape(layers[ref.component, ref.module]), 1.0)
        for ref, delta in reading.deltas.items()
    }


@cache
def _pipeline(family: str) -> Any:
    return tiny_pipeline(family)


def _by_diffusers(family: str, path: Path) -> Deltas:
    pipeline = _pipeline(family)
    try:
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=_NAME)
        return {
            ModuleRef(component, name): delta
            for component in pipeline._lora_loadable_modules
            for name, delta in _deltas(getattr(pipeline, component), _NAME).items()
        }
    finally:
        pipeline.unload_lora_weights()


def _by_peft(family: str, path: Path) -> Deltas:
    base = tiny_base(family)
    component = base.denoiser_component
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(copy.deepcopy(base.denoiser), str(path.parent))
    found = _deltas(model.get_base_model(), "default")
    return {ModuleRef(component, name): delta for name, delta in found.items()}


def _deltas(module: Any, adapter: str) -> dict[str, Tensor]:
    return {
        name: layer.get_delta_weight(adapter).detach()
        for name, layer in module.named_modules()
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A
    }


def _without_effect(deltas: Deltas) -> bool:
    """Whether nothing changes; a layer without numbers is one for which none were found."""
    return not any(not d.is_meta and float(d.abs().max()) for d in deltas.values())


def _require_equal(ours: Deltas, theirs: Deltas) -> None:
    for ref in {*ours, *theirs}:
        our, their = ours.get(ref), theirs.get(ref)
        if our is None or their is None:
            there = our if our is not None else their
            if there is not None and float(there.abs().max()) > 0:
                raise DisagreementError(
                    f"{ref} is changed by {'us' if our is not None else 'them'}"
                )
            continue
        if not torch.allclose(our, their, rtol=1e-4, atol=1e-5 * float(their.abs().max())):
            ratio = float((our * their).sum() / their.square().sum().clamp_min(1e-30))
            raise DisagreementError(f"{ref}: ours is {ratio:.6g} times theirs")


def _quietly(load: Any, family: str, path: Path) -> Deltas | Exception:
    with no_noise():
        try:
            result: Deltas = load(family, path)
            return result
        except Exception as error:
            return error


@contextlib.contextmanager
def no_noise() -> Any:
    """Silences the libraries' hints about files that are odd on purpose."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
