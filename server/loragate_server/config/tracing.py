"""The section `tracing` of the configuration."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from loragate_server.config.section import Section


class TracingSection(Section):
    """Where traces go. Needs the extra `tracing`.

    Attributes:
        endpoint: of an OTLP collector that speaks gRPC; `https` for one with a certificate.
        sample_ratio: share of the calls that are traced, where the caller has not decided it.
    """

    enabled: bool = False
    endpoint: str = "http://otel-collector:4317"
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    service_name: str = Field(default="loragate", min_length=1, max_length=255)

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path not in ("", "/")
        ):
            raise ValueError(f"{value!r} is not an address like http://otel-collector:4317")
        return value
