"""Says whether the gate stands in this SGLang.

    python examples/sglang/attach.py

To be run in the environment in which SGLang serves, with `pip install ./client` done. Runs the two
steps that SGLang's workers run before they load weights, and leaves with 0 when every hook is in
its place. A worker in which one is not ends with the same message instead of serving.
"""

from __future__ import annotations

import sys
from importlib import import_module

from loragate.integrations.sglang import PIPELINE, REGISTRIES


def main() -> int:
    """Runs the example; a `SystemExit` of the plugin says what does not fit."""
    plugins = import_module(REGISTRIES[0])
    plugins.load_plugins()
    plugins.apply_plugin_hooks()
    hooked = sorted(plugins.HookRegistry._patched)
    print("\n".join(hooked))
    if f"{PIPELINE}.load_lora_adapter" not in hooked:
        print("The plugin was not loaded. Is loragate installed here, and named in SGLANG_PLUGINS?")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
