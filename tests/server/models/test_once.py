"""What is told of a base model once is remembered, and goes with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

from loragate_server.intake.convert import _most_rows
from loragate_server.intake.loader_rules.original_names import layer_refs, turned_layers
from loragate_server.intake.loader_rules.tensor_rule import _tables
from loragate_server.intake.loader_rules.webui_tables import _sdnext_names
from loragate_server.models import BaseModel
from testkit.tiny_models import tiny_base

TOLD: tuple[Callable[[BaseModel], object], ...] = (
    _most_rows,
    _sdnext_names,
    _tables,
    layer_refs,
    turned_layers,
)


def test_what_is_remembered_does_not_keep_a_base_model_alive() -> None:
    base = tiny_base("sd")
    assert all(tell(base) is tell(base) for tell in TOLD)
    gone = weakref.ref(base)
    del base
    gc.collect()
    assert gone() is None
