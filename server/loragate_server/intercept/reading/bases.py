"""Whether a request keeps to the base model that its adapters are audited for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from loragate_server.intercept.refusals import ambiguous_adapter

_AS_IT_IS = frozenset(
    {"", "none", "automatic", "default", "built-in", "use same checkpoint", "use same choices"}
)
"""How a request says that the model stays what it is."""


def refuse_other_base(value: Any, place: str, base_names: Collection[str]) -> None:
    """Refuses a name of a model, or of a part of one, that the operator has not listed.

    Args:
        value: a name, or a list of names.
        place: where it stands, for people.
        base_names: what the audited base may be called; empty where that is not looked at.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS.
    """
    if not base_names or value is None or value is False:
        return
    for one in value if isinstance(value, list) else [value]:
        named = isinstance(one, str) and (one.casefold() in _AS_IT_IS or one in base_names)
        if not named:
            raise ambiguous_adapter(
                place,
                "names another base model than the one that adapters are audited for.",
                "Leave it out, or name the model in base_names.",
            )
