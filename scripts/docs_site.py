"""What mkdocs.yml adds to mkdocs: pages from the root of the repository, and links out of docs/.

Documents link to each other and to files as they lie in the repository, so that they can be read
there. On the site a link to another page stays one, and any other file is looked for in the
repository and linked at `extra.source_url`. A link to a file that does not exist is a warning,
which fails a strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "docs/README.md": "contents.md",
}
"""Files whose page has another name than the file has below docs/."""

DECISIONS = "docs/adr"
_DECISIONS_PAGE = "adr/index.md"
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")

_log = logging.getLogger("mkdocs.plugins.docs_site")


def on_files(files: Files, config: Mapping[str, Any]) -> Files:
    """Adds the pages that are no files below docs/, and gives docs/README.md its other name."""
    covered = files.get_file_from_path("README.md")
    if covered is not None:
        files.remove(covered)
    for source, page in MOVED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, _DECISIONS_PAGE, content=decisions()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Mapping[str, Any], **_: Any) -> str:
    """Rewrites the links of a page."""
    uri = page.file.src_uri
    source = next((source for source, moved in MOVED.items() if moved == uri), f"docs/{uri}")
    return rewritten(markdown, source, uri, config["extra"]["source_url"])


def decisions() -> str:
    """The page that lists the decisions on the architecture by their headings."""
    lines = ["# Architecture decisions", ""]
    for file in sorted((ROOT / DECISIONS).glob("*.md")):
        heading = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        lines.append(f"- [{heading}]({file.name})")
    return "\n".join(lines) + "\n"


def rewritten(markdown: str, source: str, uri: str, source_url: str) -> str:
    """Markdown with links as the site needs them; what stands in fenced code is left alone.

    Args:
        markdown: of the file.
        source: the file, relative to the root of the repository.
        uri: of its page.
        source_url: where files that are no pages are found.
    """

    def replace(found: re.Match[str]) -> str:
        opening, target, anchor, closing = found.groups(default="")
        return f"{opening}{_address(target, source, uri, source_url)}{anchor}{closing}"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(replace, markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replace, markdown[end:])])


def _address(target: str, source: str, uri: str, source_url: str) -> str:
    if re.match(r"[a-z]+:", target):
        return target
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).exists():
        _log.warning("%s links to %s, which does not exist", source, path)
        return target
    page = _page(path)
    if page is None:
        return source_url + path + ("/" if (ROOT / path).is_dir() else "")
    return posixpath.relpath(page, posixpath.dirname(uri) or ".")


def _page(path: str) -> str | None:
    """The page or picture of the site that a file or folder is; None where it is not on it."""
    if path == DECISIONS:
        return _DECISIONS_PAGE
    if path.startswith("docs/") and (ROOT / path / "README.md").exists():
        path += "/README.md"
    if path in MOVED:
        return MOVED[path]
    below = path.startswith("docs/") and (ROOT / path).is_file()
    return path.removeprefix("docs/") if below else None
