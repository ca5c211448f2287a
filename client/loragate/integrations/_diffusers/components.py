"""The components of a guarded pipeline: those with weights stay the ones that were guarded."""

from __future__ import annotations

from typing import Any

from loragate.integrations._diffusers import parts
from loragate.integrations._diffusers.seal import UnauditedChange


class Components:
    """What a pipeline was made of when it was guarded.

    Args:
        pipeline: with its own class still.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._names = set(type(pipeline)._get_signature_keys(pipeline)[0])
        self._guarded: dict[str, Any] = {
            name: getattr(pipeline, name, None) for name in self._names
        }
        self._guarded |= parts.models(pipeline)
        self._words = {name: len(one) for name, one in self._guarded.items() if _is_tokenizer(one)}

    def before_setting(self, name: str, value: Any) -> None:
        """Lets an attribute of the pipeline be set.

        Raises:
            UnauditedChange: another model, or another tokenizer, would take the place of one.
        """
        if name not in self._guarded or value is None or value is self._guarded[name]:
            return
        if any(map(_means_something, (value, self._guarded[name]))):
            raise UnauditedChange(
                f"{name} of a guarded pipeline cannot be exchanged, as nobody would be asked about "
                "what the new one holds. Release the guard, set it, and guard the pipeline anew."
            )

    def check(self) -> None:
        """Makes sure that all are still there, or gone.

        Raises:
            UnauditedChange: one was exchanged, or a tokenizer has learned words.
        """
        for name in self._names:
            self.before_setting(name, getattr(self._pipeline, name, None))
        for name, count in self._words.items():
            if len(self._guarded[name]) != count:
                raise UnauditedChange(
                    f"{name} of the guarded pipeline has {len(self._guarded[name])} words and had "
                    f"{count}. The guard lets in no embeddings of new words. Release it, set the "
                    "tokenizer back, and guard the pipeline anew."
                )


def _means_something(component: Any) -> bool:
    """Whether a component holds weights, or decides which of them a prompt uses."""
    return parts.is_model(component) or _is_tokenizer(component)


def _is_tokenizer(component: Any) -> bool:
    return hasattr(component, "add_tokens")
