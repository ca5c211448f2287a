"""The nodes of the pack."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

DENIED = "LoragateDenied"


class LoragateLoraLoader:
    """As ComfyUI's LoraLoader; by its name a graph says that its LoRAs are audited."""

    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "load"
    CATEGORY = "loragate"
    DESCRIPTION = "Loads a LoRA that loragate allows at these strengths."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What ComfyUI shows."""
        strength = ("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01})
        names = import_module("folder_paths").get_filename_list("loras")
        return {
            "required": {"model": ("MODEL",), "lora_name": (names,), "strength_model": strength},
            "optional": {"clip": ("CLIP",), "strength_clip": strength},
        }

    def load(
        self,
        model: Any,
        lora_name: str,
        strength_model: float,
        clip: Any = None,
        strength_clip: float = 1.0,
    ) -> tuple[Any, Any]:
        """Loads it through ComfyUI's functions, before each of which stands the gate.

        Raises:
            AdapterBlocked: the service decided against it.
            AuditError: no decision exists.
        """
        path = import_module("folder_paths").get_full_path_or_raise("loras", lora_name)
        lora = import_module("comfy.utils").load_torch_file(path, safe_load=True)
        made = import_module("comfy.sd").load_lora_for_models(
            model, clip, lora, strength_model, strength_clip
        )
        return made[0], made[1]


class LoragateDenied:
    """What is left of a graph that was refused. Its validation fails, with the reason."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    FUNCTION = "refuse"
    CATEGORY = "loragate"
    OUTPUT_NODE = True  # ComfyUI validates a graph from its outputs

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """One text."""
        return {"required": {"reason": ("STRING", {"default": "", "multiline": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, reason: str) -> str:  # noqa: N802 (ComfyUI's name)
        """Whatever is not True is the sentence that ComfyUI answers."""
        return reason or "loragate refused this graph."

    def refuse(self, reason: str) -> None:
        """Never runs, as the validation fails.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(reason)


NODE_CLASS_MAPPINGS = {"LoragateLoraLoader": LoragateLoraLoader, DENIED: LoragateDenied}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoragateLoraLoader": "Load LoRA (audited)",
    DENIED: "Refused by loragate",
}
