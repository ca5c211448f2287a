"""What a proxy must let through to a server that speaks Triton's gRPC, and what not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from loragate_server.intercept.servers.infer_wire import read_infer_request
from tests.e2e.open_server import Guarded
from tests.e2e.proxy_stack import FORBIDDEN, HARMLESS
from tests.server.intercept.bodies import infer_message

SERVICE = "/inference.GRPCInferenceService"


class GuardedTriton:
    """What holds for inference over gRPC behind an Envoy."""

    def test_inference_over_grpc_is_read(self, triton: Guarded) -> None:
        stack, server = triton
        server.came.clear()
        plain = {"model_name": "m", "inputs": [{"name": "prompt", "datatype": "BYTES"}]}
        named = {"model_name": "m", "parameters": {"lora_path": "/elsewhere/evil.safetensors"}}
        tensor = {"model_name": "m", "inputs": [{"name": "lora_weights", "datatype": "FP16"}]}
        with grpc.insecure_channel(f"127.0.0.1:{stack.ports['PROXY_PORT']}") as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            assert infer(infer_message(plain), timeout=15) == infer_message(plain)
            for one in (named, tensor):
                assert refused(lambda one=one: infer(infer_message(one), timeout=15))
            assert channel.unary_unary(f"{SERVICE}/ServerReady")(b"", timeout=15) == b""
            assert refused(lambda: channel.unary_unary(f"{SERVICE}/Patch")(b"", timeout=15))
        assert server.came == [f"{SERVICE}/ModelInfer", f"{SERVICE}/ServerReady"]

    def test_each_message_of_a_stream_is_read_before_it_reaches_the_server(
        self, triton: Guarded
    ) -> None:
        stack, server = triton
        server.came.clear()
        server.streamed.clear()
        asked: queue.Queue[bytes | None] = queue.Queue()
        plain, harmless = infer_message({"model_name": "m"}), naming(HARMLESS)
        with grpc.insecure_channel(f"127.0.0.1:{stack.ports['PROXY_PORT']}") as channel:
            stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
            heard = stream(iter(asked.get, None), timeout=120)
            for _ in range(3):  # an answer before the next is asked: nothing waits for the end
                asked.put(plain)
                assert next(heard) == plain
            asked.put(harmless)
            told = read_infer_request(next(heard))
            loaded = Path(told["parameters"]["lora_path"])
            assert loaded.read_bytes() == HARMLESS.read_bytes()
            assert loaded.is_relative_to(stack.logs / "state")
            asked.put(naming(FORBIDDEN))
            asked.put(plain)
            with pytest.raises(grpc.RpcError):  # Envoy breaks off what has begun to answer
                next(heard)
            asked.put(None)
        assert server.came == [f"{SERVICE}/ModelStreamInfer"]
        assert server.streamed == [plain] * 3 + [infer_message(told)]

    def test_a_stream_ends_as_its_client_ends_it(self, triton: Guarded) -> None:
        stack, _ = triton
        messages = [infer_message({"model_name": "m", "raw": ["x" * size]}) for size in (1, 10**6)]
        with grpc.insecure_channel(f"127.0.0.1:{stack.ports['PROXY_PORT']}") as channel:
            stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
            assert list(stream(iter(messages * 3), timeout=120)) == messages * 3

    def test_a_stream_that_begins_with_a_forbidden_adapter_hears_why_it_ends(
        self, triton: Guarded
    ) -> None:
        stack, server = triton
        server.streamed.clear()
        ended = threading.Event()

        def requests() -> Iterator[bytes]:
            yield naming(FORBIDDEN)
            ended.wait(120)

        with grpc.insecure_channel(f"127.0.0.1:{stack.ports['PROXY_PORT']}") as channel:
            for path in (f"{SERVICE}/ModelStreamInfer", "/elsewhere/again/ModelStreamInfer"):
                heard = channel.stream_stream(path)(requests(), timeout=120)
                with pytest.raises(grpc.RpcError) as caught:
                    next(heard)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert "jack-o-lantern" in caught.value.details()
            ended.set()
        assert server.streamed == []


def naming(path: Path) -> bytes:
    """A message that names an adapter."""
    return infer_message({"model_name": "m", "parameters": {"lora_path": str(path)}})


def refused(call: Callable[[], object]) -> bool:
    """Whether a call ends because it is not allowed."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return bool(caught.value.code() is grpc.StatusCode.PERMISSION_DENIED)
