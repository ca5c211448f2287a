"""A guarded diffusers pipeline.

    python examples/diffusers/run.py [PICTURE.png]

Starts a loragate server on this machine and loads the shipped base model with diffusers. A
harmless LoRA is loaded and a picture drawn with it; one that has learned a forbidden concept is
refused, alone, in company, and by a swap under the harmless one's name.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

import loragate_server
from loragate import AdapterBlocked, AuditClient
from loragate.integrations.diffusers import guard
from loragate_server.testing import server_process

ADAPTERS = Path(__file__).parents[1] / "adapters"
BASE_MODEL = Path(loragate_server.__file__).parent / "assets" / "emoji_tiny" / "pipeline"


def main(picture: Path) -> int:
    """Runs the example; returns 0 when everything went as it says above."""
    pipeline = StableDiffusionPipeline.from_pretrained(BASE_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    harmless = ADAPTERS / "harmless-watermelon.safetensors"
    forbidden = ADAPTERS / "learned-bomb.safetensors"
    refused = 0
    with (
        tempfile.TemporaryDirectory() as state,
        server_process(Path(state)) as server,
        AuditClient(server.grpc, on_unavailable="raise") as client,
        guard(pipeline, client),
    ):
        pipeline.load_lora_weights(harmless, adapter_name="style")
        print(f"loaded   {harmless.name}")
        pipeline.set_adapters(["style"], [0.8])
        print("set      its strength to 0.8, which was audited as well")
        generator = torch.Generator().manual_seed(1)
        image = pipeline("watermelon", num_inference_steps=20, generator=generator).images[0]
        image.save(picture)
        print(f"drew     {picture}")
        for options in ({"adapter_name": "more"}, {"adapter_name": "style", "hotswap": True}):
            try:
                pipeline.load_lora_weights(forbidden, **options)
            except AdapterBlocked as blocked:
                refused += 1
                print(f"refused  {blocked}")
    return 0 if refused == 2 else 1


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir()) / "emoji.png"
    sys.exit(main(target))
