"""`ModelInferRequest` on the wire, read without its message class.

A class of ours would lose what it does not know and what comes twice, and servers differ in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.refusals import ambiguous_body, unreadable
from loragate_server.intercept.servers.triton_wire import unframed

_REMEDY = "Send one ModelInferRequest."
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Fields = list[tuple[int, int | bytes]]

# Field numbers of open_inference_grpc.proto, with those that Triton adds to parameters.
_REQUEST = {1: "model_name", 2: "model_version", 3: "id"}
_TENSOR = {1: "name", 2: "datatype"}
_PARAMETERS, _INPUTS, _OUTPUTS, _RAW = 4, 5, 6, 7
_TENSOR_SHAPE, _TENSOR_PARAMETERS, _TENSOR_CONTENTS = 3, 4, 5
_OUTPUT_NAME, _OUTPUT_PARAMETERS = 1, 2
_KEY, _VALUE = 1, 2
_STRING_PARAM, _LAST_PARAM = 3, 5


def read_infer_request(body: bytes, coding: str, limits: BodyLimits) -> dict[str, Any]:
    """The request as its JSON would be, without the contents of tensors.

    Raises:
        RefusedRequestError: BODY_UNREADABLE or BODY_AMBIGUOUS.
    """
    fields = _fields(unframed(body, coding, limits, _REMEDY))
    document = _texts(fields, _REQUEST, (_PARAMETERS, _INPUTS, _OUTPUTS, _RAW))
    document["parameters"] = _parameters(fields, _PARAMETERS)
    document["inputs"] = [_input(one) for one in _messages(fields, _INPUTS)]
    document["outputs"] = [_output(one) for one in _messages(fields, _OUTPUTS)]
    return document


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
    for number, value in fields:
        if number in others:
            continue
        name = names.get(number)
        if name is None or name in found:
            raise ambiguous_body("The message repeats fields or has unknown ones.", _REMEDY)
        found[name] = _text(value)
    return found


def _parameters(fields: _Fields, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in _messages(fields, number):
        keys: list[str] = []
        values: list[Any] = []
        for part, value in _fields(entry):
            if part == _KEY:
                keys.append(_text(value))
            elif part == _VALUE and isinstance(value, bytes):
                values += [_choice(*choice) for choice in _fields(value)]
            else:
                raise ambiguous_body("A parameter has unknown fields.", _REMEDY)
        key = keys[0] if keys else ""
        if len(keys) > 1 or len(values) > 1 or key in found:
            raise ambiguous_body("A parameter of the message comes twice.", _REMEDY)
        found[key] = values[0] if values else None
    return found


def _choice(number: int, value: int | bytes) -> Any:
    """The value of a parameter; of numbers it matters only that they are some."""
    if number > _LAST_PARAM:
        raise ambiguous_body("A parameter is of an unknown kind.", _REMEDY)
    if number == _STRING_PARAM:
        return _text(value)
    if not isinstance(value, int):
        raise unreadable("A parameter of the message is not of its kind.", _REMEDY)
    return value


def _messages(fields: _Fields, number: int) -> Iterator[bytes]:
    for one, value in fields:
        if one == number:
            if not isinstance(value, bytes):
                raise unreadable("The message is no inference request.", _REMEDY)
            yield value


def _text(value: int | bytes) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError as error:
        raise unreadable("A text of the message is not in UTF-8.", _REMEDY) from error


def _fields(data: bytes) -> _Fields:
    """Number and value of each field, in order."""
    found: _Fields = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            found.append((number, value))
            continue
        size, at = _varint(data, at) if kind == _BYTES else (_sizes(kind), at)
        if number == 0 or at + size > len(data):
            raise unreadable("The message is no inference request.", _REMEDY)
        part = data[at : at + size]
        found.append((number, part if kind == _BYTES else int.from_bytes(part, "little")))
        at += size
    return found


def _sizes(kind: int) -> int:
    size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
    if size is None:
        raise unreadable("The message is no inference request.", _REMEDY)
    return size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return number, at + 1
        at += 1
    raise unreadable("The message is no inference request.", _REMEDY)
