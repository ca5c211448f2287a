"""Forms as stable-diffusion.cpp reads them: by cpp-httplib, which takes heads apart by `;` alone.

It finds a boundary at the first `boundary=` of the type, cuts a disposition at every semicolon,
quoted or not, and takes a part whose file has no name for a plain field. So forms that any client
sends are read, and others, which it might read otherwise than everybody else, are refused.
"""

from __future__ import annotations

import re
from dataclasses import replace

from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.reading.forms import Field, read_form
from loragate_server.intercept.refusals import ambiguous_body, unreadable
from loragate_server.intercept.request import HttpRequest

_TYPE = re.compile(r"multipart/form-data;[ \t]*boundary=(\"?)([A-Za-z0-9'()+_,./:?-]+)\1")
_DISPOSITION = re.compile(
    rb'content-disposition:[ \t]*form-data; name=(?:"([^"\\;=\r\n]*)"|([][A-Za-z0-9_.-]+))'
    rb"(?:; filename=(?:\"([^\"\\;\r\n]*)\"|([][A-Za-z0-9_.-]+))"
    rb"(?:; filename\*=UTF-8''[^;\"\s]+)?)?",
    re.IGNORECASE,
)
_OTHER_HEAD = re.compile(rb"(?!content-disposition)[A-Za-z-]+:[^\r\n]*", re.IGNORECASE)
_REMEDY = 'Send the form as curl does: form-data; name="prompt", and every field once.'


def plain_form(request: HttpRequest, limits: BodyLimits) -> tuple[Field, ...]:
    """The fields of a form, with nameless files among the plain ones.

    Raises:
        RefusedRequestError: BODY_UNREADABLE for another type, which the server refuses but for
            spellings that it takes for this one; BODY_AMBIGUOUS or as `read_form` otherwise.
    """
    kind = _TYPE.fullmatch(request.header("content-type").strip())
    if kind is None:
        raise unreadable(
            "The body is no plain multipart form.", "Send multipart/form-data with a boundary."
        )
    form = tuple(
        replace(one, file_name=one.file_name or None) for one in read_form(request, limits)
    )
    delimiter, end = f"--{kind[2]}\r\n".encode(), 0
    for one in form:
        if one.span is None or not _is_plain(request.body[end : one.span[0]], delimiter, one):
            raise ambiguous_body("A part of the form has an unusual head.", _REMEDY)
        end, delimiter = one.span[1], f"\r\n--{kind[2]}\r\n".encode()
    names = [one.name for one in form if one.file_name is None]
    if len(set(names)) != len(names):
        raise ambiguous_body("The form has the same field twice.", _REMEDY)
    return form


def _is_plain(head: bytes, delimiter: bytes, field: Field) -> bool:
    """Whether what stands before a field says the same to every reader."""
    if not head.startswith(delimiter):
        return False
    lines = head[len(delimiter) :].removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = [match for line in lines if (match := _DISPOSITION.fullmatch(line))]
    others = [line for line in lines if _OTHER_HEAD.fullmatch(line)]
    if len(found) != 1 or len(lines) != len(others) + 1:
        return False
    quoted, plain, quoted_file, plain_file = found[0].groups()
    name, file_name = plain or quoted, plain_file or quoted_file
    return name == field.name.encode() and bool(file_name) == (field.file_name is not None)
