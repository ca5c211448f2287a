"""`ModelInferRequest` on the wire, read without its message class.

A class of ours would lose what it does not know and what comes twice, and servers differ in both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.refusals import Location, ambiguous_body, unreadable
from loragate_server.intercept.servers.protobuf_wire import FIXED64, VARINT, Part, chunk, parts
from loragate_server.intercept.servers.triton_wire import unframed

_REMEDY = "Send one ModelInferRequest."
_Fields = list[Part]

# Field numbers of open_inference_grpc.proto, with those that Triton adds to parameters.
_REQUEST = {1: "model_name", 2: "model_version", 3: "id"}
_TENSOR = {1: "name", 2: "datatype"}
_PARAMETERS, _INPUTS, _OUTPUTS, _RAW = 4, 5, 6, 7
_TENSOR_SHAPE, _TENSOR_PARAMETERS, _TENSOR_CONTENTS = 3, 4, 5
_OUTPUT_NAME, _OUTPUT_PARAMETERS = 1, 2
_HOLDERS = {_INPUTS: ("inputs", _TENSOR_PARAMETERS), _OUTPUTS: ("outputs", _OUTPUT_PARAMETERS)}
_KEY, _VALUE = 1, 2
_BOOL, _INT64, _STRING, _DOUBLE, _UINT64 = 1, 2, 3, 4, 5
_NUMBERS = {_BOOL: VARINT, _INT64: VARINT, _DOUBLE: FIXED64, _UINT64: VARINT}
"""How the parameters that are numbers stand on the wire."""


def infer_message(body: bytes, coding: str, limits: BodyLimits) -> bytes:
    """The one message of a body, without its prefix and compression.

    Raises:
        RefusedRequestError: BODY_UNREADABLE or BODY_AMBIGUOUS.
    """
    return unframed(body, coding, limits, _REMEDY)


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def read_infer_request(message: bytes) -> dict[str, Any]:
    """The request as its JSON would be, without the contents of tensors.

    Raises:
        RefusedRequestError: BODY_UNREADABLE or BODY_AMBIGUOUS.
    """
    fields = _fields(message)
    document = _texts(fields, _REQUEST, (_PARAMETERS, _INPUTS, _OUTPUTS, _RAW))
    document["parameters"] = _parameters(fields, _PARAMETERS)
    document["inputs"] = [_input(one) for one in _messages(fields, _INPUTS)]
    document["outputs"] = [_output(one) for one in _messages(fields, _OUTPUTS)]
    return document


def with_texts(message: bytes, texts: Mapping[Location, str]) -> bytes:
    """A message that was read, with other texts in some of its parameters.

    Args:
        message: without its prefix.
        texts: by where the parameters stand in what `read_infer_request` gives.
    """
    own = {at[-1]: text for at, text in texts.items() if len(at) == 2}
    made, seen = [], dict.fromkeys(_HOLDERS, 0)
    for part in parts(message):
        new = part.raw
        if part.number == _PARAMETERS:
            new = _with_text(part, own)
        elif part.number in _HOLDERS:
            room, field = _HOLDERS[part.number]
            here = (room, seen[part.number])
            seen[part.number] += 1
            inner = {at[-1]: text for at, text in texts.items() if at[:2] == here}
            new = _in_tensor(part, field, inner) if inner else new
        made.append(new)
    return b"".join(made)


def _in_tensor(tensor: Part, field: int, texts: Mapping[Any, str]) -> bytes:
    inner = (
        _with_text(part, texts) if part.number == field else part.raw for part in parts(tensor.data)
    )
    return chunk(tensor.number, b"".join(inner))


def _with_text(parameter: Part, texts: Mapping[Any, str]) -> bytes:
    """One parameter, with its new text if it has one."""
    keys = [_text(part) for part in parts(parameter.data) if part.number == _KEY]
    key = keys[0] if keys else ""
    if key not in texts:
        return parameter.raw
    value = chunk(_STRING, texts[key].encode())
    return chunk(parameter.number, chunk(_KEY, key.encode()) + chunk(_VALUE, value))


def _input(data: bytes) -> dict[str, Any]:
    fields = _fields(data)
    others = (_TENSOR_SHAPE, _TENSOR_PARAMETERS, _TENSOR_CONTENTS)
    parameters = _parameters(fields, _TENSOR_PARAMETERS)
    return {"datatype": "", **_texts(fields, _TENSOR, others), "parameters": parameters}


def _output(data: bytes) -> dict[str, Any]:
    fields = _fields(data)
    texts = _texts(fields, {_OUTPUT_NAME: "name"}, (_OUTPUT_PARAMETERS,))
    return {**texts, "parameters": _parameters(fields, _OUTPUT_PARAMETERS)}


def _texts(fields: _Fields, names: Mapping[int, str], others: tuple[int, ...]) -> dict[str, Any]:
    """The texts of a message, each of which may come once, and nothing that is not known."""
    found: dict[str, Any] = {}
    for part in fields:
        if part.number in others:
            continue
        name = names.get(part.number)
        if name is None or name in found:
            raise ambiguous_body("The message repeats fields or has unknown ones.", _REMEDY)
        found[name] = _text(part)
    return found


def _parameters(fields: _Fields, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in _messages(fields, number):
        keys: list[str] = []
        values: list[bytes] = []
        for part in _fields(entry):
            if part.number == _KEY:
                keys.append(_text(part))
            elif part.number == _VALUE and isinstance(part.value, bytes):
                values.append(part.value)
            else:
                raise ambiguous_body("A parameter has unknown fields.", _REMEDY)
        choices = [_choice(choice) for value in values for choice in _fields(value)]
        key = keys[0] if keys else ""
        if len(keys) > 1 or len(values) > 1 or len(choices) > 1 or key in found:
            raise ambiguous_body("A parameter of the message comes twice.", _REMEDY)
        found[key] = choices[0] if choices else None
    return found


def _choice(part: Part) -> Any:
    """The value of a parameter."""
    if part.number == _STRING:
        return _text(part)
    if part.number not in _NUMBERS:
        raise ambiguous_body("A parameter is of an unknown kind.", _REMEDY)
    # Of another kind, a server would skip it and take the parameter for one without a value.
    if part.kind != _NUMBERS[part.number] or not isinstance(part.value, int):
        raise unreadable("A parameter of the message is not of its kind.", _REMEDY)
    return _number(part.number, part.value)


def _number(kind: int, value: int) -> bool | int | float:
    value &= (1 << 64) - 1
    if kind == _DOUBLE:
        return float(struct.unpack("<d", value.to_bytes(8, "little"))[0])
    if kind == _BOOL:
        return bool(value)
    return value - (1 << 64) if kind == _INT64 and value >> 63 else value


def _messages(fields: _Fields, number: int) -> Iterator[bytes]:
    for one in fields:
        if one.number == number:
            if not isinstance(one.value, bytes):
                raise unreadable("The message is no inference request.", _REMEDY)
            yield one.value


def _text(part: Part) -> str:
    """The text of a field; of a kind that no text has it would be skipped by a server."""
    try:
        return part.data.decode()
    except UnicodeDecodeError as error:
        raise unreadable("A text of the message is not in UTF-8.", _REMEDY) from error


def _fields(data: bytes) -> _Fields:
    return list(parts(data))
