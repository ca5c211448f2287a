"""Changes a configuration file where it lies, and leaves its comments and its order alone."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from loragate_server.config.sources import ConfigError, load_config
from loragate_server.files import whole_file

_INDENTED = re.compile(r"^\S[^\n]*:[^\S\n]*\n {2,}- ", re.MULTILINE)
"""A list that is indented below its key, as many people write it."""


def add_base_model(file: Path, entry: Mapping[str, object]) -> None:
    """Appends one to `base_models`; the file is made where there is none.

    What comes of it is loaded before it takes the place of the file.

    Raises:
        ConfigError: the file cannot be used, or could not with the entry; it is as it was.
        OSError: it cannot be written.
    """
    file = file.resolve()  # a link stays one
    before = _read(file)
    after = _with_base_model(file, before, entry)
    with whole_file(file) as partial:
        partial.write_text(after, encoding="utf-8")
        if file.exists():
            shutil.copymode(file, partial)
        try:
            load_config(partial)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(partial), str(file))) from error


def section_of(entry: Mapping[str, object]) -> str:
    """The lines of a configuration file that say the same."""
    return _dump(_yaml(""), CommentedMap({"base_models": [CommentedMap(entry)]}))


def _read(file: Path) -> str:
    if not file.exists():
        return ""
    load_config(file)  # what is wrong before is told before
    return file.read_text(encoding="utf-8")


def _with_base_model(file: Path, text: str, entry: Mapping[str, object]) -> str:
    yaml = _yaml(text)
    try:
        content = yaml.load(text)
    except YAMLError as error:
        raise ConfigError(f"{file}: {error}") from error
    if content is None:
        return f"{text}{section_of(entry)}"  # nothing but comments, which stay
    models = content.setdefault("base_models", [])
    models.append(CommentedMap(entry))
    return _dump(yaml, content)


def _yaml(text: str) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096
    if not text or _INDENTED.search(text):
        yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dump(yaml: YAML, content: CommentedMap) -> str:
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
