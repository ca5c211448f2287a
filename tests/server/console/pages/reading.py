"""Reads pages as a strict browser would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr", "source"}
Facts = dict[str, str | None]


class Page(HTMLParser):
    """Elements with their attributes, and the text inside them. Every element has to be closed."""

    def __init__(self, text: str, headers: Mapping[str, str]) -> None:
        super().__init__(convert_charrefs=True)
        self.source, self.headers = text, headers
        self.elements: list[tuple[str, Facts]] = []
        self.open: list[tuple[str, set[str], int]] = []
        self.texts: list[tuple[set[str], str]] = []
        self.inside: list[set[str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements are not closed"
        ids = [facts["id"] for _, facts in self.elements if "id" in facts]
        assert len(ids) == len(set(ids)), "ids stand there twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.elements.append((tag, facts))
        names = {tag, f"#{facts.get('id')}"}
        names |= {f".{c}" for c in (facts.get("class") or "").split()}
        self.inside.append(set().union(*(one for _, one, _ in self.open)))
        if tag not in VOID:
            self.open.append((tag, names, len(self.elements)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((set().union(*(names for _, names, _ in self.open)), data))

    def text(self, where: str = "main") -> str:
        """The text inside elements of a tag, #id or .class, in one line."""
        found = " ".join(data for place, data in self.texts if where in place)
        return re.sub(r"\s+", " ", found).strip()

    def all(self, tag: str, inside: str = "") -> list[Facts]:
        """Attributes of every element of a tag."""
        places = zip(self.elements, self.inside, strict=True)
        return [facts for (name, facts), at in places if name == tag and inside in {"", *at}]

    def links(self, inside: str = "main") -> list[str]:
        """Where the links inside an element lead."""
        return [facts["href"] or "" for facts in self.all("a", inside)]

    def form(self, name: str) -> dict[str, str]:
        """Hidden fields of a form, as they would be sent."""
        hidden = [one for one in self.all("input", f"#{name}") if one.get("type") == "hidden"]
        assert hidden, f"there is no form {name}"
        return {one["name"] or "": one["value"] or "" for one in hidden}
