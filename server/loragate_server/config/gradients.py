"""The section `gradients` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from loragate_server.config.section import GIB, Positive, Section


class GradientsSection(Section):
    """How the gradients of concepts are made on a base model.

    Attributes:
        kind: "dense" holds every layer's gradient in whole; "lean" holds sketches of them and a few
            rows at once; "auto" is dense up to `dense_bytes`.
        dense_bytes: predicted peak above which "auto" is lean. It is no matter of what is free at
            the moment, so that all servers of a base model make the same gradients.
        rows_at_once: most rows of a micro-batch of the lean way; fewer where memory is short.
        memory_bytes: memory of the device that the work may take, with the base model's weights;
            0: whatever is free.
    """

    kind: Literal["auto", "dense", "lean"] = "auto"
    dense_bytes: Positive = 24 * GIB
    rows_at_once: Positive = 4
    memory_bytes: Annotated[int, Field(ge=0)] = 0
