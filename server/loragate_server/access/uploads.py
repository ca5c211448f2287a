"""Forms with files: read piece by piece within limits, and only for those who may send them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict, MultiDictProxy

from loragate_server.access.forms import CSRF_FIELD, FormTokens
from loragate_server.access.refusals import AccessRefused, Refusal

MAX_UPLOAD_BYTES: Final = 24 << 20
MAX_FILE_BYTES: Final = 3 << 20
MAX_FILES: Final = 24
MAX_TEXT_BYTES: Final = 16 << 10
MAX_TEXTS: Final = 40
AT_ONCE: Final = 2
"""Forms that are held in memory at a time; others are told to come again."""

_CHUNK_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Upload:
    """A form with files, whose token has been looked at.

    Attributes:
        texts: the fields that people typed.
        files: bytes of the files, by the name of their field; their names are not kept.
    """

    texts: MultiDictProxy[str]
    files: MultiDictProxy[bytes]


UPLOAD: Final = web.RequestKey("upload", Upload)
"""Where the access middleware leaves a form with files."""


class Uploads:
    """Reads such forms, a few at a time."""

    def __init__(self, tokens: FormTokens) -> None:
        self._tokens = tokens
        self._places = asyncio.Semaphore(AT_ONCE)

    async def read(self, request: web.Request, binding: str) -> Upload:
        """The form of a request.

        Its token comes first, so that nothing else of a form is read that no page of the console
        has sent.

        Raises:
            AccessRefused: it is no form, too long, or has no token that fits.
            web.HTTPServiceUnavailable: others are being read.
        """
        length = request.content_length
        if hdrs.CONTENT_ENCODING in request.headers:
            raise AccessRefused(Refusal.NOT_A_FORM, request.headers[hdrs.CONTENT_ENCODING])
        if length is None or length > MAX_UPLOAD_BYTES:
            raise AccessRefused(Refusal.UPLOAD_TOO_LONG, str(length))
        if self._places.locked():
            raise web.HTTPServiceUnavailable(
                text="Other pictures are being sent. Try again in a moment.",
                headers={hdrs.RETRY_AFTER: "10"},
            )
        async with self._places:
            try:
                return await self._parts(request, binding)
            except (ValueError, LookupError, RuntimeError, HttpProcessingError) as error:
                raise AccessRefused(Refusal.NOT_A_FORM, type(error).__name__) from error

    async def _parts(self, request: web.Request, binding: str) -> Upload:
        texts, files = MultiDict[str](), MultiDict[bytes]()
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name:
                raise AccessRefused(Refusal.NOT_A_FORM, "a part without a name")
            if not texts:
                token = await _text(part) if part.name == CSRF_FIELD else ""
                if not self._tokens.fits(token, binding, request.path):
                    raise AccessRefused(Refusal.FORM_TOKEN)
                texts.add(CSRF_FIELD, token)
            elif part.filename is None:
                texts.add(part.name, await _text(part))
            else:
                data = await _bytes(part, MAX_FILE_BYTES)
                if data:  # browsers send an empty file where none was chosen
                    files.add(part.name, data)
            if len(texts) > MAX_TEXTS or len(files) > MAX_FILES:
                raise AccessRefused(Refusal.UPLOAD_TOO_LONG, "parts")
        if not texts:
            raise AccessRefused(Refusal.FORM_TOKEN)
        return Upload(MultiDictProxy(texts), MultiDictProxy(files))


async def _text(part: BodyPartReader) -> str:
    return (await _bytes(part, MAX_TEXT_BYTES)).decode("utf-8")


async def _bytes(part: BodyPartReader, most: int) -> bytes:
    # As it was sent: a part that says it is compressed is not made larger here.
    found = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        found += chunk
        if len(found) > most:
            raise AccessRefused(Refusal.UPLOAD_TOO_LONG, part.name or "")
    return bytes(found)
