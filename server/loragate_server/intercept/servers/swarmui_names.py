"""Which file of its folder SwarmUI takes for a name.

It lists the files of its folder and compares their names with the one that it is given. Where none
is the same, it takes the shortest that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed

SUFFIX = ".safetensors"
"""What the server leaves out at the end of a name."""

_LISTED = (SUFFIX, ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
"""How the names of files end that the server lists, in these letters only."""
_CAPITALS = {one: one + 32 for one in range(ord("A"), ord("Z") + 1)}


def small(text: str) -> str:
    """A text in small letters as the server makes them: no letter but those of ASCII changes."""
    return text.translate(_CAPITALS)


def clean(name: str) -> str:
    """What of a name the server compares."""
    return "".join(one for one in small(name) if one not in " []").strip()


def without_suffix(name: str) -> str:
    """A name as the server shows it."""
    return name.removesuffix(SUFFIX)


def in_list(name: str) -> tuple[str, ...]:
    """What the server looks for by an item of a list: first as written, then without suffix."""
    return clean(name), clean(without_suffix(without_suffix(name)))


def in_tag(name: str) -> tuple[str, ...]:
    """What the server looks for by a tag."""
    return (clean(without_suffix(small(name).replace("\\", "/"))),)


@dataclass(frozen=True)
class SwarmNames:
    """The names of the files that the server lists."""

    files: LoraFiles

    def whole(self, compared: Sequence[str], place: str) -> str:
        """The file whose whole name the server looks for.

        Args:
            compared: what it looks for, one after the other until the name of a file holds it.
            place: where the name stands, for people.

        Raises:
            RefusedRequestError: ADAPTER_UNNAMED, or ADAPTER_AMBIGUOUS where it is that of several.
        """
        for wanted in dict.fromkeys(compared):
            same = [path for path, name in self._listed if name == wanted]
            if len(same) == 1:
                _refuse_read_anew(same[0], place)
                return same[0]
            if same:
                raise ambiguous_adapter(
                    place, "is the name of several files.", "Rename all of them but one."
                )
            if any(wanted in name for _, name in self._listed):
                break
        raise unnamed(
            place,
            "is not the whole name of a LoRA in the folder.",
            "Send the path below the folder, as ListModels has it.",
        )

    @cached_property
    def _listed(self) -> tuple[tuple[str, str], ...]:
        """The server passes over hidden files and folders, and over other suffixes."""
        return tuple(
            (path, clean(without_suffix(path)))
            for path in self.files.names
            if path.endswith(_LISTED) and not any(one[:1] == "." for one in path.split("/"))
        )


def _refuse_read_anew(path: str, place: str) -> None:
    """What the server makes of a name it reads once more, as a list with suffixes."""
    if "," in path or without_suffix(path).endswith(SUFFIX):
        raise ambiguous_adapter(
            place,
            "is the name of a file with a comma or two suffixes, for which the server loads "
            "others.",
            "Rename the file.",
        )
