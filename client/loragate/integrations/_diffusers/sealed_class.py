"""A class for one guarded pipeline: what Python calls on classes only cannot be stood in for."""

from __future__ import annotations

from functools import wraps
from typing import Any

from loragate.integrations._diffusers.admission import COPIED, Admission
from loragate.integrations._diffusers.components import Components
from loragate.integrations._diffusers.seal import UnauditedChange


def sealed_class(kind: type, admission: Admission, components: Components) -> type:
    """A class like that of a pipeline, under the same name.

    It looks at the models before each call, and lets none be exchanged for another.
    """

    class Sealed(kind):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            components.before_setting(name, value)
            super().__setattr__(name, value)

        def register_modules(self, **modules: Any) -> None:
            # diffusers writes them into the configuration before it sets them.
            for name, module in modules.items():
                components.before_setting(name, module)
            super().register_modules(**modules)

        @wraps(kind.__call__)
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            components.check()
            with admission.drawing():
                return super().__call__(*args, **kwargs)

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise UnauditedChange(COPIED)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Sealed, name, getattr(kind, name))
    return Sealed
