"""From what requests call an adapter to an `AdapterReference` that intake can fetch."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed

WEIGHT_SUFFIXES = (
    ".safetensors",
    ".sft",
    ".ckpt",
    ".pt",
    ".pt2",
    ".pth",
    ".bin",
    ".gguf",
    ".pkl",
    ".msgpack",
)
"""How the names of files end that hold weights, for any server: a name that ends so is never
completed. Which of them a server takes, its own look-up knows."""

AS_TRAINED = Strength()

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_FETCHED = frozenset({"http", "https", "s3", "gs", "hf"})
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
_MAY_BE_HUB_ID = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"})
_SECRET_NAME = re.compile(r"token|key|secret|sig|auth|passw|credential", re.IGNORECASE)
_CIVITAI = re.compile(r"^urn:air:|(^|[/.@])civitai\.com([/:]|$)|^[0-9]+@[0-9]+$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_CHARS = 4096
_PATH_REMEDY = "Name a file in a folder that loragate shares with the image server."


def looks_like_weights(text: str) -> bool:
    """Whether a text names a file of weights: a path, a file name, a URL of one or an AIR."""
    lowered = text.strip().lower()
    if len(lowered) > _MAX_CHARS:
        return False
    if lowered.startswith("urn:air:") or "civitai.com/" in lowered:
        return True
    end = re.split(r"[?#]", lowered, maxsplit=1)[0] if "://" in lowered else lowered
    # Windows opens "a.pt." as "a.pt"; such names are refused later on, but must not go unseen.
    return end.rstrip(". ").endswith(WEIGHT_SUFFIXES)


def is_file(path: str) -> bool:
    """Whether there is a file of that name; a name that no file can have is none of one."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str) -> bool:
    """Whether there is a folder of that name."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: str) -> bool:
    """Whether anything has that name, a file or a folder."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def checked_text(value: Any, place: str) -> str:
    """A reference as text.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED when it is no text, empty, too long or unprintable.
    """
    if not isinstance(value, str) or not value.strip():
        raise unnamed(place, "names no adapter.", _PATH_REMEDY)
    if len(value) > _MAX_CHARS or _UNPRINTABLE.search(value) or value != value.strip():
        raise unnamed(place, "is no plain reference to an adapter.", _PATH_REMEDY)
    return value


def anywhere(
    value: Any, place: str, strength: Strength = AS_TRAINED, *, hub_ids: bool = True
) -> AdapterReference:
    """A reference that may be a path, a URL or the id of a repository on the hub.

    Args:
        value: as it stands in the request.
        place: where it stands, for people.
        strength: how strongly the adapter will be applied.
        hub_ids: whether `owner/name` without the suffix of a file of weights is taken for a
            repository; otherwise it is a path.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED when intake could not fetch it.
    """
    text = checked_text(value, place)
    _refuse_foreign(text, place)
    if _SCHEME.match(text):
        return _from_url(text, place, strength)
    _refuse_windows(text, place)
    if _OTHER_SCHEME.match(text):
        raise unnamed(
            place, "has a scheme that loragate does not fetch.", "Use https, hf or s3, or a path."
        )
    if hub_ids and _HUB_ID.fullmatch(text) and not text.lower().endswith(WEIGHT_SUFFIXES):
        return AdapterReference(uri=f"hf://{text}", strength=strength)
    return AdapterReference(path=text, strength=strength)


def on_disk_or_hub(
    value: Any, place: str, strength: Strength = AS_TRAINED, *, hub_ids: bool
) -> AdapterReference:
    """A reference for a server that asks the hub for every path that it does not have on its disk.

    Args:
        value: as it stands in the request.
        place: where it stands, for people.
        strength: how strongly the adapter will be applied.
        hub_ids: whether the server reaches the hub.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED also for a relative path that may be either.
    """
    reference = anywhere(value, place, strength, hub_ids=hub_ids)
    if hub_ids and reference.path is not None and _MAY_BE_HUB_ID.fullmatch(reference.path):
        raise unnamed(
            place,
            "is a relative path, which the server may take for a repository of the hub.",
            "Write the whole path, from the root on.",
        )
    return reference


def in_folder(
    value: Any,
    folder: str,
    place: str,
    strength: Strength = AS_TRAINED,
    *,
    suffix: str = "",
    windows: bool = False,
) -> AdapterReference:
    """A file by its name below a folder of the server.

    Args:
        value: as it stands in the request.
        folder: where the server looks for it.
        place: where it stands, for people.
        strength: how strongly the adapter will be applied.
        suffix: added to names that do not end as files of weights do, where no file has the name
            as it stands.
        windows: whether the server may run on Windows, and call folders as that does.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED, also for a name that climbs out of the folder;
            ADAPTER_AMBIGUOUS where the name may mean the file beside the one that has it.
    """
    name = checked_text(value, place)
    _refuse_foreign(name, place)
    if windows and not _SCHEME.match(name):
        name = with_slashes(name)
    _refuse_windows(name, place)
    if _SCHEME.match(name):
        return _from_url(name, place, strength)
    parts = name.split("/")
    if name.startswith("/") or {"", ".", ".."} & set(parts):
        raise unnamed(place, "climbs out of the folder of LoRAs.", _PATH_REMEDY)
    if any(part.endswith((".", " ")) for part in parts):
        raise unnamed(
            place, "ends in a dot or a blank, which some systems leave out.", "Leave it out."
        )
    path = f"{folder.rstrip('/')}/{name}"
    return AdapterReference(path=_completed(path, suffix, place), strength=strength)


def _completed(path: str, suffix: str, place: str) -> str:
    """The path of the file that a name means, with the suffix that a server may add to it.

    Some servers take a name as it stands, some add a suffix, and some do whichever finds a file.
    So of a name that fits two files nobody can say which is loaded.
    """
    if not suffix:
        return path
    if not is_file(path):
        return path if path.lower().endswith(WEIGHT_SUFFIXES) else path + suffix
    endings = (*WEIGHT_SUFFIXES, *(one.upper() for one in WEIGHT_SUFFIXES))
    beside = [one for one in endings if is_file(path + one)]
    if beside:
        raise ambiguous_adapter(
            place,
            f"is the name of a file, and with {beside[0]} that of another beside it.",
            "Rename one of the two, and write the whole name of the file.",
        )
    return path


def with_slashes(name: str) -> str:
    """A name below a folder as it is written elsewhere than on Windows."""
    return name.replace("\\", "/")


def hub_file(
    repository: str,
    place: str,
    strength: Strength = AS_TRAINED,
    *,
    file: str | None = None,
    revision: str | None = None,
) -> AdapterReference:
    """A file of a repository on the hub.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED when a part of it is not plain.
    """
    if not _HUB_ID.fullmatch(repository) or _climbs(file or "x") or _climbs(revision or "x"):
        raise unnamed(place, "is no plain id of a repository.", "Write owner/name.")
    if file:
        _refuse_foreign(file, place)
    return AdapterReference(
        uri=f"hf://{repository}", weight_name=file, revision=revision, strength=strength
    )


def _climbs(text: str) -> bool:
    return bool({"", ".", ".."} & set(text.split("/")) or _UNPRINTABLE.search(text))


def _refuse_foreign(text: str, place: str) -> None:
    """Refuses what intake cannot fetch, or cannot look into."""
    lowered = text.lower()
    if _CIVITAI.search(lowered):
        raise unnamed(
            place,
            "names an adapter on Civitai, which loragate cannot fetch.",
            "Download it, have loragate audit it, and name the file.",
        )
    if re.split(r"[?#]", lowered, maxsplit=1)[0].endswith(_ARCHIVES):
        raise unnamed(
            place,
            "names an archive, which loragate does not unpack.",
            "Unpack it and name the safetensors file.",
        )


def _refuse_windows(text: str, place: str) -> None:
    if "\\" in text or re.match(r"[A-Za-z]:", text):
        raise unnamed(place, "is a Windows path.", "Write the path with forward slashes.")


def _from_url(text: str, place: str, strength: Strength) -> AdapterReference:
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower()
        has_port = parts.port is not None
    except ValueError as error:
        raise unnamed(place, "is no valid URL.", _PATH_REMEDY) from error
    scheme = parts.scheme.lower()
    if scheme not in _FETCHED or not host:
        raise unnamed(
            place, "has a scheme that loragate does not fetch.", "Use https, hf or s3, or a path."
        )
    if parts.username is not None or any(
        _SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)
    ):
        raise unnamed(
            place,
            "holds a secret, which would end up in the records.",
            "Give loragate its own credentials and send the URL without them.",
        )
    if parts.fragment or "\\" in text or " " in text:
        raise unnamed(place, "is no plain URL.", "Send the URL without fragment and spaces.")
    if scheme in ("http", "https") and host in _HUB_HOSTS and not has_port:
        return _from_hub_url(parts, place, strength)
    return AdapterReference(uri=text, strength=strength)


def _from_hub_url(parts: SplitResult, place: str, strength: Strength) -> AdapterReference:
    """`/owner/name`, or `/owner/name/resolve/revision/file` as the hub's pages link it."""
    segments = [unquote(one) for one in parts.path.strip("/").split("/")]
    repository = "/".join(segments[:2])
    if len(segments) == 2:
        return hub_file(repository, place, strength)
    if len(segments) > 4 and segments[2] in ("resolve", "blob", "raw"):
        file = str(PurePosixPath(*segments[4:]))
        return hub_file(repository, place, strength, file=file, revision=segments[3])
    raise unnamed(
        place,
        "is no link to a repository or a file of the hub.",
        "Write https://huggingface.co/owner/name/resolve/revision/file.",
    )
