"""Reads the file of an embedding: the rows that stand for one new word in a prompt.

Three forms are read: `emb_params` of A1111 and ComfyUI, one tensor named by its word of diffusers,
and `clip_l` with `clip_g` for SDXL. Whatever else is in a file could be loaded unseen, so a file
with more, or for other text encoders than the base model's, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.embedding import names_a_layer
from loragate_server.models.base import BaseModel
from loragate_server.models.words import room_for_words

A1111 = "emb_params"
BY_ENCODER = ("clip_l", "clip_g")
"""Names of the rows for SDXL, in the order of its text encoders."""


def read_words(tensors: Mapping[str, Tensor], base: BaseModel) -> tuple[str, dict[str, Tensor]]:
    """The format, and by text encoder the rows of the new word, float32 [n, width].

    Args:
        tensors: the whole file, by name.
        base: whose text encoders have to take the rows.

    Raises:
        NoDecisionError: EMBEDDING_INVALID for a file that is no embedding, is one of several
            words, has rows for other text encoders, or more rows than a prompt has room for;
            WEIGHTS_NOT_FINITE for numbers that float32 does not hold.
    """
    tables = base.word_tables()
    if not tables:
        raise _invalid(
            f"Base model {base.name} is of the family {base.family}, in whose prompts loragate "
            "puts no new words.",
            "Ask about a base model of Stable Diffusion 1, 2 or XL.",
        )
    layer = next((name for name in tensors if names_a_layer(name)), None)
    if layer is not None:
        raise _invalid(
            f"The file was sent as an embedding and is none: {layer[:80]!r} is a layer's tensor.",
            "Send a LoRA without the kind embedding. Of a LoRA that is bundled with embeddings, "
            "save each embedding as a file of its own.",
            layer,
        )
    kind, parts = _parts(tensors, list(tables))
    found = {}
    for component, name in parts.items():
        found[component] = _rows(name, tensors[name], component, tables[component].width)
    counts = {len(rows) for rows in found.values()}
    if len(counts) > 1:
        raise _invalid(
            f"The embedding has {' and '.join(map(str, sorted(counts)))} rows for the text "
            "encoders of one word.",
            "Export the embedding again, with as many rows for each text encoder.",
        )
    room = room_for_words(base)
    if max(counts) > room:
        raise _invalid(
            f"The embedding has {max(counts)} rows; a prompt of {base.name} has room for {room}.",
            "Train the embedding with fewer vectors.",
        )
    return kind, found


def _parts(tensors: Mapping[str, Tensor], components: list[str]) -> tuple[str, dict[str, str]]:
    """The format, and by text encoder the name of its tensor."""
    names = set(tensors)
    if len(components) == len(BY_ENCODER) and names == set(BY_ENCODER):
        return "embedding of SDXL", dict(zip(components, BY_ENCODER, strict=True))
    if len(components) == 1 and len(names) == 1:
        (name,) = names
        kind = "embedding of A1111" if name == A1111 else "embedding of diffusers"
        return kind, {components[0]: name}
    shown = ", ".join(repr(name[:80]) for name in list(tensors)[:3])
    wanted = "one tensor" if len(components) == 1 else f"the tensors {' and '.join(BY_ENCODER)}"
    raise _invalid(
        f"The file has {len(names)} tensors ({shown}); an embedding for this base model has "
        f"{wanted} and nothing else.",
        "Send one word per file, trained for this base model.",
    )


def _rows(name: str, tensor: Tensor, component: str, width: int) -> Tensor:
    """float32 [n, width] of one text encoder."""
    if not tensor.is_floating_point():
        raise _invalid(
            f"Tensor {name[:80]!r} is of the type {tensor.dtype}, not of numbers with a fraction.",
            "Export the embedding again, as float32 or float16.",
            name,
        )
    rows = tensor.unsqueeze(0) if tensor.ndim == 1 else tensor
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != width:
        raise _invalid(
            f"Tensor {name[:80]!r} has the shape {list(tensor.shape)}; the words of {component} "
            f"are rows of {width} numbers.",
            "Ask about the base model that the embedding was trained for.",
            name,
        )
    made = rows.to(torch.float32).contiguous()
    if not bool(made.isfinite().all()):
        raise NoDecisionError(
            ErrorReason.WEIGHTS_NOT_FINITE,
            f"Tensor {name[:80]!r} holds a number that float32 does not.",
            remedy="Train or export the embedding again.",
            metadata={"tensor": name[:80]},
        )
    return made


def _invalid(message: str, remedy: str, tensor: str = "") -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.EMBEDDING_INVALID,
        message,
        remedy=remedy,
        metadata={"tensor": tensor[:80]} if tensor else {},
    )
