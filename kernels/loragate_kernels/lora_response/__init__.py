"""How far LoRA adapters point along given directions of each layer, without any delta.

It says nothing of how far activations move once layers are adapted; `pair_stats` measures that.
"""

from loragate_kernels.lora_response.adapters import LowRank
from loragate_kernels.lora_response.config import LoraResponseConfig
from loragate_kernels.lora_response.directions import Directions, LayerDirections
from loragate_kernels.lora_response.op import inner_products
from loragate_kernels.lora_response.result import InnerProducts

__all__ = [
    "Directions",
    "InnerProducts",
    "LayerDirections",
    "LoraResponseConfig",
    "LowRank",
    "inner_products",
]
