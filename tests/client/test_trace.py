"""The caller's trace goes along, if there is one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from opentelemetry.sdk.trace import TracerProvider


async def test_a_call_within_a_span_names_it(client: Any, fake: Any) -> None:
    with TracerProvider().get_tracer("caller").start_as_current_span("load") as span:
        await client.audit(b"adapter")
    context = span.get_span_context()
    named = fake.calls[0].metadata["traceparent"]
    ids = f"{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert named == f"00-{ids}"


async def test_a_call_outside_a_span_names_none(client: Any, fake: Any) -> None:
    await client.audit(b"adapter")
    assert "traceparent" not in fake.calls[0].metadata


def test_a_caller_without_opentelemetry_does_not_load_it() -> None:
    program = (
        "import sys\nfrom loragate._channel import call_metadata\n"
        "from loragate.config import ClientConfig\n"
        "assert call_metadata(ClientConfig('127.0.0.1:1')) == ()\n"
        "assert 'opentelemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
