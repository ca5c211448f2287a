"""What an extractor says of a request, as tests ask it."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor

EVIL = "/loras/evil.safetensors"
SET = b'{"lora_nickname": "x", "lora_path": "/loras/evil.safetensors"}'


def refusal(server: str, request: HttpRequest, **settings: Any) -> RefusalCode:
    with pytest.raises(RefusedRequestError) as caught:
        extractor(server, **settings).extract(request)
    return caught.value.code


def found(server: str, request: HttpRequest, **settings: Any) -> list[str | None]:
    return [one.path or one.uri for one in extractor(server, **settings).extract(request).adapters]
