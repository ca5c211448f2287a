"""Base models: what differs between model families, hidden behind `BaseModel`."""

from loragate_server.models.base import BaseModel, Conditioning, per_row_loss
from loragate_server.models.loading import BaseModelError, from_pipeline, load_base_model

__all__ = [
    "BaseModel",
    "BaseModelError",
    "Conditioning",
    "from_pipeline",
    "load_base_model",
    "per_row_loss",
]
