"""Taking a concept out: strict where a server decides by the library, free while it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.errors import ErrorReason, NoDecisionError
from tests.server.console.pages.shelf import make_library


@pytest.mark.parametrize("names", [("plain-0",), ("mascot", "weapon")])
def test_what_is_left_has_to_decide_unless_the_library_is_being_made(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    library = make_library(tmp_path / "library")
    *first, last = names
    for name in first:
        library = library.remove(name)
    with pytest.raises(NoDecisionError) as refused:
        library.remove(last)
    assert refused.value.reason is ErrorReason.LIBRARY_EMPTY
    assert ConceptLibrary.open(library.folder).digest == library.digest
    left = library.remove(last, usable=False)
    assert left.lacking == ("1 neutral" if last == "plain-0" else "1 forbidden")
    assert last not in [one.concept_id for one in ConceptLibrary.read(library.folder).concepts]
