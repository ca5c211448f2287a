"""Reads a report as a strict browser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of sections."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, set[str]]] = []
        self.texts: list[tuple[set[str], str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.elements.append((tag, facts))
        if tag not in VOID:
            names = {tag, f"#{facts.get('id')}"}
            self.open.append((tag, names | {f".{c}" for c in (facts.get("class") or "").split()}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((set().union(*(names for _, names in self.open)), data))

    def text(self, where: str = "main") -> str:
        """The text inside elements of a tag, #id or .class, in one line."""
        found = " ".join(data for place, data in self.texts if where in place)
        return re.sub(r"\s+", " ", found).strip()
