"""A small image server with real LoRAs and real pictures.

    python examples/image-server/server.py --port 30000

It has OpenAI's images route, and takes LoRAs as SGLang or as vLLM-Omni does.
It has no gate of its own. The proxies in the folders beside this one stand in front of it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvicorn
from diffusers.utils import logging as diffusers_logging
from fastapi import FastAPI, HTTPException
from painter import LoraError, Painter
from PIL.Image import Image
from pydantic import AliasChoices, BaseModel, Field

_T = TypeVar("_T")
PIPELINE = Path(__file__).parents[2] / "server/loragate_server/assets/emoji_tiny/pipeline"


class LoraApi(StrEnum):
    """How adapters are named. A server speaks one of these, as its extractor in loragate does."""

    SGLANG = "sglang"
    """`/v1/set_lora` and the routes beside it, for all pictures to come."""
    VLLM_OMNI = "vllm-omni"
    """A `lora` object in each request for pictures."""


Strength = Annotated[float, Field(allow_inf_nan=False, ge=-100, le=100)]


class SetLora(BaseModel):
    """Body of `POST /v1/set_lora`: lists, or single values for one adapter."""

    lora_nickname: str | list[str]
    lora_path: str | list[str | None] | None = None
    strength: Strength | list[Strength] = 1.0

    def wanted(self) -> dict[str, tuple[str | None, float]]:
        """File and strength by nickname.

        Raises:
            LoraError: the lists do not go together.
        """
        names = _as_list(self.lora_nickname)
        paths = _spread(self.lora_path, len(names), "lora_path")
        strengths = _spread(self.strength, len(names), "strength")
        if len(set(names)) != len(names):
            raise LoraError("lora_nickname holds a nickname twice")
        return dict(zip(names, zip(paths, strengths, strict=True), strict=True))


class RequestLora(BaseModel):
    """The `lora` object of a request for pictures, with the names that vLLM-Omni accepts."""

    path: str = Field(
        validation_alias=AliasChoices("local_path", "path", "lora_path", "lora_local_path")
    )
    scale: Strength = Field(1.0, validation_alias=AliasChoices("scale", "lora_scale"))


class Generation(BaseModel):
    """Body of `POST /v1/images/generations`."""

    prompt: str = Field(max_length=2000)
    n: int = Field(1, ge=1, le=4)
    num_inference_steps: int = Field(8, ge=1, le=50)
    seed: int = Field(0, ge=0, lt=2**63)
    lora: RequestLora | None = None


def application(painter: Painter, api: LoraApi) -> FastAPI:
    """The routes. They are plain functions, so that each runs in a thread of its own."""
    app = FastAPI(title="example image server", openapi_url=None)
    if api is LoraApi.SGLANG:
        _add_sglang_routes(app, painter)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/images/generations")
    def generations(body: Generation) -> dict[str, Any]:
        if body.lora and api is not LoraApi.VLLM_OMNI:
            raise HTTPException(400, "a lora object needs --lora-api vllm-omni")
        pictures = _or_400(
            lambda: painter.paint(
                body.prompt,
                count=body.n,
                steps=body.num_inference_steps,
                seed=body.seed,
                lora=(body.lora.path, body.lora.scale) if body.lora else None,
            )
        )
        return {"data": [{"b64_json": _png(picture)} for picture in pictures]}

    return app


def _add_sglang_routes(app: FastAPI, painter: Painter) -> None:
    @app.post("/v1/set_lora")
    def set_lora(body: SetLora) -> dict[str, str]:
        wanted = _or_400(body.wanted)
        _or_400(lambda: painter.set_loras(wanted))
        return {"status": "ok", "message": f"active: {', '.join(wanted) or 'none'}"}

    @app.post("/v1/unmerge_lora_weights")
    def unmerge_lora_weights() -> dict[str, str]:
        painter.clear()
        return {"status": "ok", "message": "active: none"}

    @app.get("/v1/list_loras")
    def list_loras() -> dict[str, Any]:
        active = [
            {"nickname": lora.nickname, "path": lora.path, "merged": False, "strength": strength}
            for lora, strength in painter.active()
        ]
        loaded = [{"nickname": lora.nickname, "path": lora.path} for lora in painter.loaded()]
        return {"loaded_adapters": loaded, "active": {"unet": active} if active else {}}


def _or_400(action: Callable[[], _T]) -> _T:
    """The action's result; a fault of the caller becomes an answer with status 400."""
    try:
        return action()
    except LoraError as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


def _png(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _spread(value: Any, count: int, name: str) -> list[Any]:
    """One value per adapter; a single one stands for all."""
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise LoraError(f"{name} has {len(values)} entries for {count} nicknames")
    return values


def main(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 30000,
    lora_api: Annotated[LoraApi, typer.Option(help="How adapters are named.")] = LoraApi.SGLANG,
    pipeline: Annotated[Path, typer.Option(help="Folder of a diffusers pipeline.")] = PIPELINE,
) -> None:
    """Serves pictures until it is stopped."""
    # It warns of keys that no adapter of this pipeline has.
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    uvicorn.run(application(Painter(pipeline), lora_api), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
