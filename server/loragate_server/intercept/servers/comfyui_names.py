"""Which file a name in a text means to the packs of nodes that read LoRA tags in ComfyUI.

ComfyUI lists the files of a folder in the order of their letters, which tells the first of several.
LoRA Manager keeps a list of its own in an order that a request does not tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from loragate_server.intercept.reading.lora_files import (
    LoraFiles,
    as_it_stands,
    stem_of,
    without_suffix,
)
from loragate_server.intercept.reading.references import WEIGHT_SUFFIXES

_LISTED = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
_BESIDE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".txt", ".json", ".md")
"""How files end that lie beside LoRAs to show or describe them."""
_MANAGED = (".safetensors", ".ckpt", ".pt", ".bin")


def lies_among_loras(text: str, files: LoraFiles) -> bool:
    """Whether a text names a file in the folder of LoRAs though it does not look like weights.

    One that does is judged by its input, which may hold another model's file.
    """
    known = text.lower().endswith((*WEIGHT_SUFFIXES, *_BESIDE))
    return not known and bool(as_it_stands(text, files))


def as_file(name: str, files: LoraFiles) -> tuple[str, ...]:
    """ComfyUI itself: the path below the folder. Some nodes add the suffix."""
    return _first(path for path in _listed(files) if path in (name, f"{name}.safetensors"))


def impact(name: str, files: LoraFiles) -> tuple[str, ...]:
    """Impact Pack, Inspire Pack and Easy-Use: the first path that ends so."""
    if f".{name.rpartition('.')[2]}" not in _LISTED:  # so "ckpt" alone has a suffix
        name += ".safetensors"
    return _first(path for path in _listed(files) if path.endswith(name))


def prompt_control(name: str, files: LoraFiles) -> tuple[str, ...]:
    """Prompt Control: the path, the stem, the stem with "_", or the only path with all words."""
    paths = _listed(files)
    if name in paths:
        return (name,)
    for one in (name, name.replace(" ", "_")):
        for path in paths:
            if one in (without_suffix(path), stem_of(path)):
                return (path,)
    similar = [path for path in paths if all(word in path for word in name.split())]
    return tuple(similar) if len(similar) == 1 else ()


def tag_loader(name: str, files: LoraFiles) -> tuple[str, ...]:
    """LoraTagLoader: the first path, or file name, that begins so."""
    return _first(
        path
        for path in _listed(files)
        if path.startswith(name) or PurePosixPath(path).name.startswith(name)
    )


def lora_manager(name: str, files: LoraFiles) -> tuple[str, ...]:
    """LoRA Manager: every file of that stem or path; without one, every file of the last part."""
    wanted = _bare(name.replace("\\", "/"))
    paths = [path for path in files.names if path.lower().endswith(_MANAGED)]
    last = wanted.rpartition("/")[2]
    exact = [path for path in paths if wanted in (_bare(path), _bare(path.rpartition("/")[2]))]
    # Its older spelling of names leaves the folder out.
    by_last = [path for path in paths if _bare(path.rpartition("/")[2]) == last]
    return tuple(dict.fromkeys((*exact, *by_last)))


def coziness(name: str, files: LoraFiles) -> tuple[str, ...]:
    """Coziness: the last path of that stem, or the path."""
    named = [path for path in _listed(files) if stem_of(path) == name]
    return tuple(named[-1:]) or as_file(name, files)


def rgthree(name: str, files: LoraFiles) -> tuple[str, ...]:
    """rgthree: the path, then the file name, each with and without suffix, then any part of one."""
    paths = _listed(files)
    file = PurePosixPath(name).name
    for wanted, part in (
        ({name}, str),
        ({name, without_suffix(name)}, without_suffix),
        ({name, file}, _file_of),
        ({name, stem_of(name)}, stem_of),
    ):
        if found := _first(path for path in paths if part(path) in wanted):
            return found
    return _first(path for path in paths if name in path)


def any_suffix(name: str, files: LoraFiles) -> tuple[str, ...]:
    """A node that adds the suffix itself: every file of that path, or else of that stem."""
    paths = [path for path in _listed(files) if without_suffix(path) == name]
    return tuple(paths or [path for path in _listed(files) if stem_of(path) == name])


def _file_of(path: str) -> str:
    return PurePosixPath(path).name


def _bare(path: str) -> str:
    for suffix in _MANAGED:
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path


def _listed(files: LoraFiles) -> list[str]:
    return [path for path in files.names if path.lower().endswith(_LISTED)]


def _first(paths: Iterable[str]) -> tuple[str, ...]:
    for path in paths:
        return (path,)
    return ()
