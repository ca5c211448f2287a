"""Writes server/loragate_server/rest/openapi.json: the API as JSON, described from proto/.

.venv/bin/python -m scripts.openapi            writes it
.venv/bin/python -m scripts.openapi --check    exit code 1 where it is stale

Comments of proto/ become descriptions. `buf` reads them, which scripts/install_test_tools.sh
installs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from loragate_server import __version__
from loragate_server.rest import problem
from loragate_server.rest.call import MOST_TIMEOUT_S, TIMEOUT
from loragate_server.rest.door import OPENAPI
from loragate_server.rest.rules import BYTES, JSON, LINES, Rule, rules
from loragate_server.rpc.access import METHODS, WITH_FILES
from loragate_server.rpc.unread import INLINE_BYTES_KEY
from scripts.openapi_schemas import Schemas

ROOT = Path(__file__).parents[1]
BUF = ROOT / "build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf"
ABOUT = (
    "The API of loragate as JSON. A BLOCK is an ordinary answer; a problem means that no decision "
    "exists. Fields with their default value (false, 0, empty) are left out of answers. "
    "docs/rest.md says more."
)
MESSAGE, FIELD, ENUM, SERVICE = 4, 2, 5, 6
"""Numbers in the paths of descriptor.proto."""


def comments() -> dict[str, str]:
    """What proto/ says of each message, field, enum and method, by full name."""
    image = subprocess.run(  # noqa: S603
        [BUF, "build", ROOT / "proto", "-o", "-"], check=True, capture_output=True
    )
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(image.stdout).file:
        for place in file.source_code_info.location:
            text = " ".join(place.leading_comments.split())
            if text and (name := _name(file, list(place.path))):
                found[name] = text
    return found


def _name(file: Any, path: list[int]) -> str:
    """The full name of what a path of descriptor.proto leads to; empty for the rest."""
    kinds = {MESSAGE: file.message_type, ENUM: file.enum_type, SERVICE: file.service}
    if len(path) not in (2, 4) or path[0] not in kinds:
        return ""
    outer = kinds[path[0]][path[1]]
    if len(path) == 2:
        return f"{file.package}.{outer.name}"
    inner = {(MESSAGE, FIELD): "field", (ENUM, 2): "value", (SERVICE, 2): "method"}
    members = getattr(outer, inner.get((path[0], path[2]), ""), None)
    return "" if members is None else f"{file.package}.{outer.name}.{members[path[3]].name}"


def document() -> dict[str, Any]:
    """All of it."""
    said = comments()
    schemas = Schemas(said)
    paths: dict[str, Any] = {}
    for rule in rules():
        paths.setdefault(rule.path, {})[rule.verb.lower()] = operation(rule, schemas, said)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "loragate",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {**schemas.messages, "Problem": problem_schema()},
            "responses": {"Problem": problem_response()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the server's settings. None is needed where the "
                    "server has no tokens and only its own machine can reach it.",
                }
            },
        },
    }


def operation(rule: Rule, schemas: Schemas, said: dict[str, str]) -> dict[str, Any]:
    """One method."""
    asked, answered = rule.method.input_type, rule.method.output_type
    found: dict[str, Any] = {
        "operationId": rule.method.name,
        "tags": [rule.method.containing_service.name],
        "summary": said[rule.method.full_name],
        "description": f"`{rule.rpc[1:]}`. Needs the permission `{METHODS[rule.rpc]}`.",
        "parameters": [*parameters(rule, schemas), *inline_bytes(rule), timeout()],
        "responses": {
            "200": {
                "description": said[answered.full_name],
                "content": content(rule.gives, schemas.ref(answered)),
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if rule.takes:
        found["requestBody"] = {
            "required": True,
            "content": {BYTES: {}}
            if rule.takes == BYTES
            else content(rule.takes, schemas.ref(asked)),
        }
    return found


def content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A body; of lines OpenAPI 3.1 cannot say what each one is, so that words have to."""
    if kind == JSON:
        return {JSON: {"schema": schema}}
    name = schema["$ref"].rpartition("/")[2]
    words = f"One `{name}` in JSON a line."
    if "Response" in name:
        words += ' A last line `{"problem": ...}` says why there is no decision.'
    return {LINES: {"schema": {"type": "string", "description": words}}}


def parameters(rule: Rule, schemas: Schemas) -> Iterator[dict[str, Any]]:
    """Of path and query."""
    in_path = re.findall(r"{(\w+)}", rule.path)
    kind = rule.method.input_type
    if rule.takes == BYTES:
        kind = kind.fields_by_name["header"].message_type
    elif rule.takes:
        return
    for name, schema, text in schemas.flat(kind):
        found = {"name": name, "in": "query", "description": text, "schema": schema}
        if name in in_path:
            found |= {"in": "path", "required": True, "schema": schema | {"minLength": 1}}
        if name == "declared_size_bytes":
            found["description"] += " Not needed beside Content-Length."
        yield found


def inline_bytes(rule: Rule) -> Iterator[dict[str, Any]]:
    """The header that says how much a body carries, where it may carry files."""
    if rule.rpc in WITH_FILES:
        yield {
            "name": INLINE_BYTES_KEY,
            "in": "header",
            "description": "How many bytes of adapters the body carries, before base64; 0 for "
            "none. Where there is no room for them, the body is not read.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
        }


def timeout() -> dict[str, Any]:
    """The header that ends a call."""
    return {
        "name": TIMEOUT,
        "in": "header",
        "description": "Seconds after which nobody waits for the answer any more; at most "
        f"{MOST_TIMEOUT_S:g}.",
        "schema": {
            "type": "string",
            "pattern": r"^(?!0+(\.0+)?$)[0-9]{1,5}(\.[0-9]{1,9})?$",
        },
    }


def problem_schema() -> dict[str, Any]:
    """As `loragate_server.rest.problem` writes it."""
    text, words = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "description": "Why there is no decision; RFC 9457. No problem ever stands for ALLOW.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text | {"description": "One sentence that names the cause."},
            "code": text | {"description": "Name of the status that gRPC would give."},
            "reason": text | {"description": "A value of loragate.v1.ErrorReason."},
            "remedy": text | {"description": "What the caller can do."},
            "metadata": words,
            "field": text | {"description": "The field that is to blame."},
            "retry_after_s": {"type": "number"},
            "request_id": text,
        },
    }


def problem_response() -> dict[str, Any]:
    """Every other answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": "No decision.", "content": {problem.TYPE: {"schema": schema}}}


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if not check:
        OPENAPI.write_text(text)
    elif OPENAPI.read_text() != text:
        sys.stderr.write("openapi.json is stale: run 'python -m scripts.openapi' and commit it.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
