"""Which file a name in a tag means to A1111, Forge, SD.Next and their relatives.

A1111 and Forge know files by their stem, wherever below the folder they are, and of two alike the
last one that they came by; where no stem fits, by the name that a trainer wrote into the file.
SD.Next knows them also by the path, and with "_" for "."; relatives by the stem in any letters, and
by the path, with or without suffix. When a server last looked, a request does not tell. So a name
that may mean several files means each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from loragate_server.intercept.reading.given_names import given_name
from loragate_server.intercept.reading.lora_files import LoraFiles, stem_of, without_suffix

_LOADED = (".safetensors", ".ckpt", ".pt", ".gguf")
_PREFERRED = ".safetensors"
"""Of files that differ in the suffix alone, A1111 takes this one. LocalAI may take a .gguf,
which A1111 does not take at all; it is known in these letters only."""


def files_named(name: str, files: LoraFiles) -> tuple[str, ...]:
    """The files below the folder that a name may mean; empty where there is none."""
    loaded = [path for path in files.names if path.lower().endswith(_LOADED)]
    fitting = [path for path in loaded if _means(path, name, str)]
    if any(stem_of(path) == name for path in fitting):
        return _preferred(fitting)
    # Without such a stem, A1111 and Forge ask by the names in the files, whatever other servers do.
    given = [path for path in loaded if given_name(f"{files.folder}/{path}") == name]
    fitting = fitting or [path for path in loaded if _means(path, name, str.casefold)]
    return tuple(dict.fromkeys((*_preferred(fitting), *given)))


def _means(path: str, name: str, letters: Callable[[str], str]) -> bool:
    stem, name = letters(stem_of(path)), letters(name)
    return name in (stem, stem.replace(".", "_"), letters(path), letters(without_suffix(path)))


def _preferred(paths: list[str]) -> tuple[str, ...]:
    """The paths without those whose twin with the better suffix lies beside them."""
    best = {without_suffix(path) for path in paths if path.endswith(_PREFERRED)}
    return tuple(
        path
        for path in paths
        if path.endswith((_PREFERRED, ".gguf")) or without_suffix(path) not in best
    )
