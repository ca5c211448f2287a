"""ComfyUI node pack: no LoRA is loaded that the service does not allow.

Link this folder into `custom_nodes` of a ComfyUI whose environment has `loragate` installed:

    ln -s "$(python -c 'import loragate, pathlib; print(pathlib.Path(loragate.__file__).parent)')\
/integrations/comfyui" custom_nodes/loragate

Importing it puts the gate on, so only ComfyUI should. Where the gate does not fit, the import
fails, which ComfyUI prints, and no LoRA loads at all. Configured by the variables of
`loragate.integrations._settings.VARIABLES`.
"""

from .install import install
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

install()
