"""Local responses of LoRA adapters and their overlap with directions, without any delta.

First order and per layer: what an adapter adds at a layer when that layer sees given inputs. It
is not how far activations move once every layer is adapted; that is what `pair_stats` measures.
"""

from loragate_kernels.lora_response.adapters import LowRank
from loragate_kernels.lora_response.config import LoraResponseConfig
from loragate_kernels.lora_response.directions import Direction, Directions, LayerDirections
from loragate_kernels.lora_response.op import inner_products, response_energy
from loragate_kernels.lora_response.result import InnerProducts, ResponseEnergy

__all__ = [
    "Direction",
    "Directions",
    "InnerProducts",
    "LayerDirections",
    "LoraResponseConfig",
    "LowRank",
    "ResponseEnergy",
    "inner_products",
    "response_energy",
]
