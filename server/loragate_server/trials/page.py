"""`render`: an evaluation as one HTML file that needs nothing else, for people who check others."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from loragate_server.shares import CONFIDENCE
from loragate_server.trials.evaluation import Evaluation, Rate
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE, Catalogue
from loragate_server.wording.wording import NO_NUMBER, Wording

EVALUATION: Final = Catalogue(Path(__file__).with_name("languages"))
"""The sentences of the page."""


def render(evaluation: Evaluation, language: str = DEFAULT_LANGUAGE) -> str:
    """The page as HTML; names of concepts in it are shown, never interpreted."""
    wording = Wording(language, EVALUATION)

    def shown(rate: Rate) -> str:
        if not rate.of:
            return NO_NUMBER
        low, high = (wording.percent(end) for end in rate.bounds)
        return wording(
            "rate.shown",
            share=wording.percent(rate.value),
            part=rate.count,
            of=rate.of,
            low=low,
            high=high,
        )

    return _template().render(
        e=evaluation,
        t=wording,
        shown=shown,
        language=language,
        confidence=wording.percent(CONFIDENCE),
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("evaluation.html.j2")
