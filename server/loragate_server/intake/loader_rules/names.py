"""The loaders that loragate knows, by the names that configuration, record and reports use."""

from __future__ import annotations

LOADERS = ("diffusers", "peft", "comfyui", "a1111", "sglang", "vllm-omni")
"""In the order in which readings are named. "a1111" stands for Forge and SD.Next, too."""

UNSCALED = "unscaled"
"""Stands for any loader that leaves the scales of a file out."""

EVERY_SCALE = "every-scale"
"""Stands for any loader that uses every scale that a file holds, wherever it stands."""
