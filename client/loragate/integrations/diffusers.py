"""Lets a diffusers pipeline use only adapters that the service allows, as they were audited.

from loragate import AdapterBlocked, AuditClient
from loragate.integrations.diffusers import guard

with AuditClient() as client, guard(pipeline, client, base_model="sdxl"):
    try:
        pipeline.load_lora_weights("style.safetensors", adapter_name="style")
        pipeline.set_adapters(["style"], [0.7])
    except AdapterBlocked as blocked:
        print(blocked.result.findings)
"""

from loragate.integrations._diffusers.guard import Guard, Look, guard
from loragate.integrations._diffusers.seal import UnauditedChange
from loragate.integrations._together import OnReview

__all__ = ["Guard", "Look", "OnReview", "UnauditedChange", "guard"]
