"""How long the guard of diffusers pipelines looks at a model before it is used.

python -m benchmarks.guard_look

The UNet is that of Stable Diffusion 1.5 in size and shape, in half precision, with one LoRA in all
its attentions; its weights are zeros, which take as long as others. One thread, on the CPU.
"""

from __future__ import annotations

import time

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model

from loragate.integrations._diffusers.seal import Seal

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
REPEATS = 5


def unet() -> UNet2DConditionModel:
    """The model."""
    with torch.device("meta"):
        model = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    model = model.half().to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.zero_()
    inject_adapter_in_model(LoraConfig(r=8, target_modules=TARGETS), model, "a")
    return model


def main() -> None:
    """Prints the least of several measurements for each way of looking."""
    torch.set_num_threads(1)
    model = unet()
    seal = Seal("unet", model)
    seal.pin_adapters({"a"})
    print(f"{sum(one.numel() for one in model.parameters()) / 1e6:.0f} million weights")
    for deep, name in ((True, "sums of all weights"), (False, "writes and adapters")):
        took = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            seal.check(deep=deep)
            took.append(time.perf_counter() - began)
        print(f"{name}: {min(took) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
