"""Which address is which method: `http.yaml`, read as `google.api.Http`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.api.http_pb2 import Http
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from ruamel.yaml import YAML

from loragate.v1 import audit_pb2, concept_pb2

FILE = Path(__file__).with_name("http.yaml")
LINES = "application/x-ndjson"
JSON = "application/json"
BYTES = "application/octet-stream"
NAMED_FILES = (audit_pb2, concept_pb2)
"""What has to be imported so that the names in `http.yaml` are known."""


@dataclass(frozen=True)
class Rule:
    """One method and where it is.

    Attributes:
        verb: of HTTP, in capitals.
        path: as aiohttp's routes write it too.
        body: "" for a method that takes none, "*" for messages, else the field that its bytes are.
        method: as protobuf describes it.
    """

    verb: str
    path: str
    body: str
    method: MethodDescriptor

    @property
    def rpc(self) -> str:
        """As gRPC writes it: "/package.Service/Method"."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def takes(self) -> str:
        """Type of the body; empty where there is none."""
        if not self.body:
            return ""
        if self.body != "*":
            return BYTES
        return LINES if self.method.client_streaming else JSON

    @property
    def gives(self) -> str:
        """Type of the answer."""
        return LINES if self.method.server_streaming else JSON

    @property
    def question(self) -> type[Any]:
        """Class of what is asked."""
        return GetMessageClass(self.method.input_type)


@cache
def rules() -> tuple[Rule, ...]:
    """All of them, in the order of the file."""
    http = json_format.ParseDict(YAML(typ="safe").load(FILE.read_text()), Http())
    return tuple(_rule(one) for one in http.rules)


def _rule(one: Any) -> Rule:
    service, _, name = one.selector.rpartition(".")
    verb = str(one.WhichOneof("pattern"))
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return Rule(verb.upper(), getattr(one, verb), one.body, method)
