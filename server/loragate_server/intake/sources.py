"""Where bytes come from: paths inside the roots, the request itself, and URIs that are enabled."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urlsplit

from loragate_server.adapter.reference import SOURCES, AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.beside import CONFIG_NAME, decode_config
from loragate_server.intake.paths import not_found, open_path
from loragate_server.intake.reaching import PlainHttpError, client_maker

_log = logging.getLogger(__name__)

_WEB = ("http", "https")
_MOST_CAUSES = 4
_MOST_LETTERS = 8192
"""Of an address; servers of the web accept 8 KiB."""


@dataclass
class Source:
    """An open adapter file, its size where it is known before reading, and its configuration."""

    file: BinaryIO
    size_bytes: int | None
    config_json: str | None = None


@contextmanager
def open_source(ref: AdapterReference, settings: IntakeSection) -> Iterator[Source]:
    """Opens the one source of a reference.

    Raises:
        NoDecisionError: REQUEST_INVALID, PATH_NOT_ALLOWED, SOURCE_NOT_FOUND, SOURCE_NOT_ENABLED or
            SOURCE_UNREADABLE; ADAPTER_METADATA_INVALID for a configuration beside the weights that
            cannot be read.
    """
    if ref.source_count != 1:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The adapter has {ref.source_count} sources.",
            remedy=f"Set exactly one of {SOURCES}.",
            metadata={"field": "adapters.source"},
        )
    if ref.inline_bytes is not None:
        yield Source(io.BytesIO(ref.inline_bytes), len(ref.inline_bytes))
    elif ref.path is not None:
        with open_path(ref.path, ref.weight_name, settings) as (file, size_bytes, config_json):
            yield Source(file, size_bytes, config_json)
    else:
        with _open_uri(ref, settings) as source:
            yield source


@contextmanager
def _open_uri(ref: AdapterReference, settings: IntakeSection) -> Iterator[Source]:
    import fsspec  # here, because most servers never open a URI

    uri = ref.uri or ""
    address = _address_of(ref)
    scheme = address.scheme.lower()
    if scheme not in settings.enabled_schemes:
        raise NoDecisionError(
            ErrorReason.SOURCE_NOT_ENABLED,
            f"Sources of the kind {scheme or 'without scheme'!r} are not enabled on this server.",
            remedy="Send the bytes, or enable the scheme in the server's intake.enabled_schemes.",
            metadata={"scheme": scheme},
        )
    if "::" in uri:
        raise NoDecisionError(
            ErrorReason.SOURCE_NOT_ENABLED,
            "Sources that are chained with '::' are not enabled on this server.",
            remedy="Name the file by one address.",
            metadata={"scheme": scheme},
        )
    if not address.hostname:
        raise _no_address("uri", "without a host")
    options = _options(scheme, ref, settings)
    try:
        config = _config_beside(uri, scheme, ref, settings, options)
        if ref.weight_name:
            uri = f"{uri.rstrip('/')}/{ref.weight_name}"
        with fsspec.open(uri, "rb", **options) as file:
            yield Source(file, getattr(file, "size", None), config)
    except NoDecisionError:
        raise
    except Exception as error:
        if any(isinstance(cause, PlainHttpError) for cause in _causes(error)):
            raise _leads_to_plain_http(scheme) from error
        if _is_missing(error):
            raise not_found(f"{scheme} source") from error
        raise unreadable_source(scheme, error) from error


def _leads_to_plain_http(scheme: str) -> NoDecisionError:
    """Somebody on the way could give other bytes, and read what the address holds."""
    return NoDecisionError(
        ErrorReason.SOURCE_NOT_ENABLED,
        f"The {scheme} source redirects to plain http, which is not enabled on this server.",
        remedy="Name the address that it leads to by https, send the bytes, or add http to the "
        "server's intake.enabled_schemes.",
        metadata={"scheme": "http"},
    )


def unreadable_source(scheme: str, error: Exception) -> NoDecisionError:
    """The refusal of a remote source, the same for every cause.

    What the server can reach and the caller cannot must not be mapped by asking; and the text of a
    client library's error may hold credentials from the URI.
    """
    _log.warning("a source of the kind %s could not be read: %s", scheme, _names(error))
    return NoDecisionError(
        ErrorReason.SOURCE_UNREADABLE,
        f"The {scheme} source could not be read.",
        remedy="Check that it exists and that the server may read it, whose log says more; "
        "internal addresses need intake.reachable_networks.",
        metadata={"scheme": scheme},
        retry_after_s=5.0,
    )


def _names(error: BaseException) -> str:
    """The kinds of an error and of its causes, without their texts."""
    return " because of ".join(type(cause).__name__ for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came of."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _address_of(ref: AdapterReference) -> SplitResult:
    """The parts of a URI that can be one; what they mean is the client library's to say.

    Raises:
        NoDecisionError: REQUEST_INVALID: no library could make an address of it.
    """
    uri = ref.uri or ""
    for field, text in (("uri", uri), ("weight_name", ref.weight_name), ("revision", ref.revision)):
        if text and (len(text) > _MOST_LETTERS or not text.isprintable()):
            raise _no_address(
                field, f"longer than {_MOST_LETTERS} letters, or has unprintable ones"
            )
    try:
        parts = urlsplit(uri)
        _ = parts.hostname, parts.port  # read only when they are asked for
    except ValueError:  # whose text may hold credentials from the URI
        raise _no_address("uri", "no address: its host or port is none") from None
    return parts


def _no_address(field: str, fault: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.REQUEST_INVALID,
        f"The {field} is {fault}.",
        remedy="Name the file by an address such as https://host/folder/file.safetensors.",
        metadata={"field": f"adapters.{field}"},
    )


def _config_beside(
    uri: str,
    scheme: str,
    ref: AdapterReference,
    settings: IntakeSection,
    options: dict[str, Any],
) -> str | None:
    """The configuration in the folder of the weights; None where there is none.

    A web address names one file: there are no folders on the web.
    """
    import fsspec

    if scheme in _WEB:
        return None
    folder = uri.rstrip("/") if ref.weight_name else uri.rpartition("/")[0]
    limit = settings.max_metadata_bytes
    data = bytearray()
    try:
        with fsspec.open(f"{folder}/{CONFIG_NAME}", "rb", **options) as file:
            while len(data) <= limit and (chunk := file.read(limit + 1 - len(data))):
                data += chunk
    except Exception as error:
        if _is_missing(error):
            return None
        raise
    return decode_config(bytes(data), limit)


def _is_missing(error: Exception) -> bool:
    """Whether nothing is there: fsspec says so of servers that fail, too, and names the cause."""
    if error.__cause__ is None and isinstance(error, FileNotFoundError):
        return True
    return 404 in (_status(error), _status(error.__cause__))


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of aiohttp, of the hub's client or of botocore tells of."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None) or getattr(error, "status", None)
    return found if isinstance(found, int) else None


def _options(scheme: str, ref: AdapterReference, settings: IntakeSection) -> dict[str, Any]:
    """What a client library is told: how long to wait, and to read the file in one go, once."""
    timeout_s = settings.fetch_timeout_s
    if scheme in _WEB:
        from aiohttp import ClientTimeout

        patience = ClientTimeout(
            total=settings.fetch_total_s, sock_connect=timeout_s, sock_read=timeout_s
        )
        return {
            "block_size": 0,
            "client_kwargs": {"timeout": patience},
            "get_client": client_maker(
                settings.reachable_networks, plain="http" in settings.enabled_schemes
            ),
        }
    if scheme == "s3":
        return {"config_kwargs": {"connect_timeout": timeout_s, "read_timeout": timeout_s}}
    # The hub's client reads HF_HUB_DOWNLOAD_TIMEOUT from the environment of the server.
    return {"revision": ref.revision} if ref.revision else {}
