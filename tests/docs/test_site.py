"""The documentation as a site: every page is in its navigation, and its links lead somewhere."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.docs_site import MOVED, decisions, rewritten

ROOT = Path(__file__).parents[2]
SOURCE = "https://loragate.example/source/"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, of which one value is a function."""


_Loader.add_multi_constructor("!!python/", lambda *_: None)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def named(entries: list[Any]) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    for entry in entries:
        if isinstance(entry, dict):
            for inner in entry.values():
                yield from named(inner) if isinstance(inner, list) else [inner]
        else:
            yield entry


def test_the_navigation_names_each_page_once() -> None:
    docs = ROOT / "docs"
    written = {str(file.relative_to(docs)) for file in docs.rglob("*.md")} - {"README.md"}
    wanted = written | set(MOVED.values()) | {"adr/index.md"}
    assert len(written) > 50
    found = list(named(yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["nav"]))
    assert len(found) == len(set(found))
    assert set(found) == wanted


@pytest.mark.parametrize(
    ("source", "uri", "link", "address"),
    [
        ("README.md", "index.md", "docs/policy.md", "policy.md"),
        ("README.md", "index.md", "docs/adr/", "adr/index.md"),
        ("README.md", "index.md", "LICENSE", f"{SOURCE}LICENSE"),
        ("README.md", "index.md", "docs/pictures/emoji-tiny.png", "pictures/emoji-tiny.png"),
        ("docs/README.md", "contents.md", "alerts.md", "alerts.md"),
        ("docs/alerts.md", "alerts.md", "runbooks/", "runbooks/README.md"),
        ("docs/alerts.md", "alerts.md", "../tests/alerts/rules/", f"{SOURCE}tests/alerts/rules/"),
        ("docs/runbooks/README.md", "runbooks/README.md", "../alerts.md#a", "../alerts.md#a"),
        ("docs/policy.md", "policy.md", "#keys", "#keys"),
        ("docs/policy.md", "policy.md", "https://example.org/a", "https://example.org/a"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(
    source: str, uri: str, link: str, address: str
) -> None:
    assert rewritten(f"See [it]({link}).", source, uri, SOURCE) == f"See [it]({address})."


def test_what_stands_in_code_is_no_link() -> None:
    code = "```markdown\n[it](LICENSE)\n```\n"
    assert rewritten(code, "README.md", "index.md", SOURCE) == code


def test_a_link_to_a_file_that_does_not_exist_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        rewritten("[it](docs/nothing.md)", "README.md", "index.md", SOURCE)
    assert "README.md links to docs/nothing.md, which does not exist" in caplog.text


def test_every_decision_is_listed_by_its_heading() -> None:
    listed = decisions()
    for file in (ROOT / "docs" / "adr").glob("*.md"):
        heading = file.read_text().splitlines()[0].removeprefix("# ")
        assert f"[{heading}]({file.name})" in listed


@pytest.mark.long
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(
        build,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 60
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*src="?https?:|<link[^>]*stylesheet[^>]*https?:'
    )
    assert [page.name for page in pages if loaded.search(page.read_text())] == []
