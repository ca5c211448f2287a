"""`ModelInferRequest` on the wire, read without its message class.

A class of ours would lose what it does not know and what comes twice, and servers differ in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.refusals import Location, ambiguous_body, unreadable
from loragate_server.intercept.servers.protobuf_wire import Part, chunk, parts
from loragate_server.intercept.servers.triton_wire import unframed

_REMEDY = "Send one ModelInferRequest."
_Fields = list[tuple[int, int | bytes]]

# Field numbers of open_inference_grpc.proto, with those that Triton adds to parameters.
_REQUEST = {1: "model_name", 2: "model_version", 3: "id"}
_TENSOR = {1: "name", 2: "datatype"}
_PARAMETERS, _INPUTS, _OUTPUTS, _RAW = 4, 5, 6, 7
_TENSOR_SHAPE, _TENSOR_PARAMETERS, _TENSOR_CONTENTS = 3, 4, 5
_OUTPUT_NAME, _OUTPUT_PARAMETERS = 1, 2
_HOLDERS = {_INPUTS: ("inputs", _TENSOR_PARAMETERS), _OUTPUTS: ("outputs", _OUTPUT_PARAMETERS)}
_KEY, _VALUE = 1, 2
_STRING_PARAM, _LAST_PARAM = 3, 5


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
    keys = [_text(part.value) for part in parts(parameter.data) if part.number == _KEY]
    key = keys[0] if keys else ""
    if key not in texts:
        return parameter.raw
    value = chunk(_STRING_PARAM, texts[key].encode())
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
    return [(part.number, part.value) for part in parts(data)]
