"""For `@serve.multiplexed` of Ray Serve: a model id is audited before its loader sees it.

    from ray import serve
    from loragate.integrations.ray_serve import AuditedModel, audited

    @serve.deployment
    class Images:
        @serve.multiplexed(max_num_models_per_replica=3)
        @audited(folder="/models/loras")
        async def get_model(self, model: AuditedModel):
            return load(model.path)

Ray calls the loader with an id that comes from a header of the request. The loader gets an
`AuditedModel` instead, whose `path` holds exactly the audited bytes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from loragate.aio import AsyncAuditClient
from loragate.blocked import AdapterBlocked
from loragate.files import read_once
from loragate.integrations._bytes import PrivateCopies
from loragate.integrations._together import OnReview, lets_review_in
from loragate.reference import AuditOptions, checked_digest
from loragate.results import AuditResult

T = TypeVar("T")
Loader = Callable[..., Awaitable[T]]

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class AuditedModel:
    """What a guarded loader gets.

    Attributes:
        model_id: the id that was asked for.
        path: a private copy of the audited bytes; it lasts as long as the replica.
        result: the decision.
    """

    model_id: str
    path: Path
    result: AuditResult


def audited(
    *,
    folder: str | os.PathLike[str] | None = None,
    resolve: Callable[[str], str | os.PathLike[str]] | None = None,
    client: Callable[[], AsyncAuditClient] | None = None,
    base_model: str = "",
    base_digest: str | None = None,
    on_review: OnReview = "block",
    strength: float | None = None,
    loader: str = "",
) -> Callable[[Loader[T]], Loader[T]]:
    """Makes a decorator for the loader; it goes below `@serve.multiplexed`.

    Args:
        folder: where the ids are names of files, with or without ".safetensors". An id that
            leads out of it is refused.
        resolve: instead of `folder`, finds the local file for an id.
        client: makes the client, in the replica; None for one at LORAGATE_TARGET.
        base_model: name under which the service knows the model; empty for its default.
        base_digest: digest that the model must have there; None to accept any.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.
        strength: at which the adapters will be used; None for 1.
        loader: what the loader loads them with, as the service names loaders, for example
            "diffusers"; empty where that is not known.

    Raises:
        ValueError: not exactly one of `folder` and `resolve`, an `on_review` that is neither
            "block" nor "allow", or a `base_digest` that is no sha256.
    """
    if (folder is None) == (resolve is None):
        raise ValueError("audited() needs either folder or resolve.")
    gate = _Gate(
        resolve or _InFolder(Path(folder or "")),
        client or _default_client,
        {
            "base_model": base_model,
            "expected_base_digest": checked_digest(base_digest),
            "strength": strength,
            "loader": loader,
        },
        lets_review_in(on_review),
    )

    def decorate(loader: Loader[T]) -> Loader[T]:
        @wraps(loader)
        async def load(*args: Any) -> T:
            *owner, model_id = args
            return await loader(*owner, await gate.admit(model_id))

        return load

    return decorate


@dataclass
class _Gate:
    """Travels to the replicas as its settings; each makes its own client and copies there."""

    resolve: Callable[[str], str | os.PathLike[str]]
    make_client: Callable[[], AsyncAuditClient]
    options: AuditOptions
    review: bool
    client: AsyncAuditClient | None = field(default=None, init=False)
    copies: PrivateCopies | None = field(default=None, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"client": None, "copies": None}

    async def admit(self, model_id: str) -> AuditedModel:
        """The model for an id, where the service lets it in.

        Raises:
            AdapterBlocked: it does not.
            AuditError: no decision exists.
            OSError: the file cannot be read.
            ValueError: the id leads out of the folder.
        """
        data = await asyncio.to_thread(lambda: read_once(self.resolve(model_id)))
        self.client = self.client or self.make_client()
        self.copies = self.copies or PrivateCopies()
        result = await self.client.audit(data, **self.options)
        if not result.lets_in(review=self.review):
            raise AdapterBlocked(model_id, result)
        copy = await asyncio.to_thread(self.copies.put, data)
        return AuditedModel(model_id, copy, result)


@dataclass(frozen=True)
class _InFolder:
    """Finds the file for an id in one folder, and nowhere else."""

    folder: Path

    def __call__(self, model_id: str) -> Path:
        name = model_id if model_id.endswith(SUFFIX) else model_id + SUFFIX
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"The model id {model_id!r} leads out of {self.folder}.")
        return path


def _default_client() -> AsyncAuditClient:
    return AsyncAuditClient(service="ray-serve")
