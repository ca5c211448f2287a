"""Carries the comments of the chart's values.yaml into README.md and values.schema.json.

    python scripts/chart_docs.py            # writes both
    python scripts/chart_docs.py --check    # says what is stale; exit code 1 if anything is

A line `# -- TEXT` above a key of values.yaml describes it. Every value has such a line, or lies in
a section of which all values have one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CHART = Path(__file__).parents[1] / "helm" / "loragate"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
LINE_LENGTH = 110
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_]+):")
_DESCRIPTION = re.compile(r"^ *# -- (?P<text>.+)$")

Keys = tuple[str, ...]


class DocsError(Exception):
    """Values and descriptions do not fit together; the text names the value."""


@dataclass(frozen=True)
class Value:
    """A value of the chart, as a user sets it.

    Attributes:
        path: keys from the top.
        default: from values.yaml.
        text: its description.
    """

    path: Keys
    default: Any
    text: str


def described_values(text: str) -> list[Value]:
    """The values of values.yaml, in its order.

    Raises:
        DocsError: a value has no description.
    """
    texts = dict(_descriptions(text))
    return list(_values(YAML(typ="safe").load(text), texts, ()))


def _descriptions(text: str) -> Iterator[tuple[Keys, str]]:
    """Paths that a `# --` line stands above, with its text."""
    path: list[str] = []
    pending = ""
    for line in text.splitlines():
        if described := _DESCRIPTION.match(line):
            pending = described["text"]
        elif (key := _KEY.match(line)) is not None:
            path = [*path[: len(key["indent"]) // 2], key["key"]]
            if pending:
                yield tuple(path), pending
            pending = ""


def _values(tree: dict[str, Any], texts: dict[Keys, str], above: Keys) -> Iterator[Value]:
    for key, default in tree.items():
        path = (*above, key)
        if path in texts:
            yield Value(path, default, texts[path])
        elif isinstance(default, dict) and default:
            yield from _values(default, texts, path)
        else:
            raise DocsError(f"values.yaml: {'.'.join(path)} has no description; add '# -- TEXT'")


def table(values: list[Value]) -> str:
    """The values as a table in Markdown."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        rows.append(f"| `{'.'.join(value.path)}` | `{default}` | {value.text} |")
    return "\n".join(rows)


def readme_with(readme: str, values: list[Value]) -> str:
    """README.md with a fresh table between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DocsError(f"README.md lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def schema_with(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """The schema with the descriptions of all values.

    Raises:
        DocsError: the schema does not know a value.
    """
    for value in values:
        place = schema
        for key in value.path:
            place = place.get("properties", {}).get(key)
            if place is None:
                raise DocsError(f"values.schema.json does not know {'.'.join(value.path)}")
        place["description"] = value.text
    return schema


def compact(tree: Any, indent: int = 0, taken: int = 0) -> str:
    """JSON in which whatever fits on a line is on one.

    Args:
        tree: what to write.
        indent: of the line that it begins on.
        taken: letters of that line that are taken already.
    """
    short = json.dumps(tree, ensure_ascii=False)
    if not isinstance(tree, (dict, list)) or not tree or indent + taken + len(short) < LINE_LENGTH:
        return short
    inner = " " * (indent + 2)
    if isinstance(tree, list):
        lines = [inner + compact(item, indent + 2) for item in tree]
        return "[\n" + ",\n".join(lines) + "\n" + " " * indent + "]"
    lines = []
    for key, item in tree.items():
        name = json.dumps(key) + ": "
        lines.append(inner + name + compact(item, indent + 2, len(name)))
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def fresh_files(chart: Path) -> dict[Path, str]:
    """The files that descriptions go into, with the text that they should have."""
    values = described_values((chart / "values.yaml").read_text())
    readme, schema = chart / "README.md", chart / "values.schema.json"
    described = schema_with(json.loads(schema.read_text()), values)
    return {
        readme: readme_with(readme.read_text(), values),
        schema: compact(described) + "\n",
    }


def main() -> int:
    """Writes the files, or says which are stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    try:
        files = fresh_files(CHART)
    except DocsError as error:
        print(f"chart_docs: {error}", file=sys.stderr)
        return 1
    stale = [file for file, text in files.items() if file.read_text() != text]
    for file in stale:
        if check:
            print(f"chart_docs: {file.name} is stale; run `make chart`", file=sys.stderr)
        else:
            file.write_text(files[file])
            print(f"chart_docs: wrote {file.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
