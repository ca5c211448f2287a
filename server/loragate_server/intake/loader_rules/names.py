"""The loaders that loragate knows, by the names that configuration, record and reports use."""

from __future__ import annotations

LOADERS = ("diffusers", "peft", "comfyui", "a1111", "sglang", "vllm-omni")
"""In the order in which readings are named. "a1111" stands for Forge and SD.Next, too."""

LOOPS_BELOW_0 = "its conversion does not end for an alpha below 0"
TAKES_TOO_LONG = "its conversion takes too long"
"""What is said of files at which a loader would hang, or nearly."""

UNSCALED = "unscaled"
"""Stands for any loader that leaves the scales of a file out."""

EVERY_SCALE = "every-scale"
"""Stands for any loader that uses every scale that a file holds, wherever it stands."""
