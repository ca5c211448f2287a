"""Triton's load request on the wire: a gRPC frame with a protobuf message."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.reading.inflating import inflated
from loragate_server.intercept.refusals import ambiguous_body, unreadable

_PREFIX_BYTES = 5
_REMEDY = "Send one RepositoryModelLoadRequest."
_Field = descriptor_pb2.FieldDescriptorProto


def read_load_request(body: bytes, coding: str, limits: BodyLimits) -> tuple[dict[str, Any], str]:
    """The parameters of a load request, name to bool, int, str or bytes, and the model's name.

    Args:
        body: one gRPC message with its prefix.
        coding: what the header grpc-encoding says; empty without one.
        limits: how much is read.

    Raises:
        RefusedRequestError: BODY_UNREADABLE or BODY_AMBIGUOUS.
    """
    data = unframed(body, coding, limits, _REMEDY)
    message = _request_class()()
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise unreadable("The message is no load request.", _REMEDY) from error
    # A parameter sent twice, or a field that this message does not know, is lost when it is read.
    if message.ByteSize() != len(data) or _known_bytes(message) != len(data):
        raise ambiguous_body("The message repeats fields or has unknown ones.", _REMEDY)
    parameters = {}
    for name, parameter in message.parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        if chosen is None:
            raise unreadable("A parameter of the message has no value.", _REMEDY)
        parameters[name] = getattr(parameter, chosen)
    return parameters, message.model_name


def unframed(body: bytes, coding: str, limits: BodyLimits, remedy: str) -> bytes:
    """The one message of a gRPC body, its compression undone.

    Raises:
        RefusedRequestError: BODY_UNREADABLE or BODY_AMBIGUOUS.
    """
    if len(body) < _PREFIX_BYTES or body[0] > 1:
        raise unreadable("The body is no gRPC message.", remedy)
    length = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    data = body[_PREFIX_BYTES:]
    if length != len(data):
        raise unreadable("The gRPC message is cut off, or followed by more.", remedy)
    if not body[0]:
        return data
    bits = {"gzip": 31, "deflate": 15}.get(coding.strip().lower())
    if bits is None:
        raise ambiguous_body("The message is compressed in a way that is not read.", remedy)
    try:
        return inflated(data, bits, limits.max_bytes)
    except zlib.error as error:
        raise unreadable("The message is not compressed as it says.", remedy) from error
    except EOFError as error:
        raise unreadable("The compressed message is not one stream.", remedy) from error


def _known_bytes(message: Any) -> int:
    message.DiscardUnknownFields()
    return int(message.ByteSize())


@cache
def _request_class() -> Any:
    """The message class, from Triton's public field numbers."""
    file = descriptor_pb2.FileDescriptorProto(
        name="loragate/triton_load.proto", package="loragate.triton", syntax="proto3"
    )
    parameter = file.message_type.add(name="ModelRepositoryParameter")
    parameter.oneof_decl.add(name="parameter_choice")
    kinds = (
        ("bool_param", _Field.TYPE_BOOL),
        ("int64_param", _Field.TYPE_INT64),
        ("string_param", _Field.TYPE_STRING),
        ("bytes_param", _Field.TYPE_BYTES),
    )
    for number, (name, kind) in enumerate(kinds, 1):
        parameter.field.add(
            name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL, oneof_index=0
        )
    request = file.message_type.add(name="RepositoryModelLoadRequest")
    for number, name in enumerate(("repository_name", "model_name"), 1):
        request.field.add(
            name=name, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
        )
    entry = request.nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    value_type = ".loragate.triton.ModelRepositoryParameter"
    entry.field.add(
        name="value",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=value_type,
        label=_Field.LABEL_OPTIONAL,
    )
    request.field.add(
        name="parameters",
        number=3,
        type=_Field.TYPE_MESSAGE,
        type_name=".loragate.triton.RepositoryModelLoadRequest.ParametersEntry",
        label=_Field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    name = "loragate.triton.RepositoryModelLoadRequest"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
