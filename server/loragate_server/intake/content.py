"""What the first bytes of a file give away, whatever its name says."""

from __future__ import annotations

from loragate_server.errors import ErrorReason, NoDecisionError

HEAD_BYTES = 512
"""How many leading bytes `refuse_by_content` needs."""

_UNPICKLED = (
    (b"PK\x03\x04", "zip archive"),
    (b"PK\x05\x06", "empty zip archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (b"\x28\xb5\x2f\xfd", "zstandard archive"),
    (b"Rar!", "rar archive"),
)
_OTHER = (
    (b"GGUF", "GGUF model"),
    (b"\x89HDF", "HDF5 file"),
    (b"<", "HTML or XML page"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"\x89PNG", "PNG picture"),
    (b"\xff\xd8\xff", "JPEG picture"),
)


def refuse_by_content(head: bytes) -> None:
    """Refuses everything that cannot be a safetensors file by its first bytes.

    Args:
        head: the first `HEAD_BYTES` bytes, or fewer if the file is shorter.

    Raises:
        NoDecisionError: FILE_EMPTY, PICKLE_REFUSED, NOT_SAFETENSORS or FILE_TRUNCATED.
    """
    if not head:
        raise NoDecisionError(
            ErrorReason.FILE_EMPTY, "The file has no bytes.", remedy="Send the adapter's bytes."
        )
    looks_like_header = len(head) > 8 and head[8:9] == b"{"
    if not looks_like_header:
        for magic, found in _UNPICKLED:
            if head.startswith(magic):
                raise _pickle(found)
        if head[257:262] == b"ustar":
            raise _pickle("tar archive")
        if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
            raise _pickle("pickle")
        for magic, found in _OTHER:
            if head.startswith(magic):
                raise _other(found)
        if len(head) <= 8:
            raise NoDecisionError(
                ErrorReason.FILE_TRUNCATED,
                f"The file has {len(head)} bytes; a safetensors header needs more than 8.",
                remedy="Send the whole file.",
                metadata={"expected_bytes": "9", "actual_bytes": str(len(head))},
            )
        raise _other("file without a safetensors header")


def _pickle(found: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.PICKLE_REFUSED,
        f"The bytes are a {found}; loading one can run code.",
        remedy="Convert the adapter to safetensors.",
        metadata={"found": found},
    )


def _other(found: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.NOT_SAFETENSORS,
        f"The bytes are a {found}, not a safetensors file.",
        remedy="Send the adapter as one safetensors file.",
        metadata={"found": found},
    )
