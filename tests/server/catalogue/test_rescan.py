"""A scan after a new concept: files are read again, and forward passes made where they must."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from loragate_server.catalogue.earlier import FACTS
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import EMBEDDED_LIBRARY
from testkit.derived_adapters import ADAPTERS
from testkit.lanes import daily
from tests.server.catalogue.scans import Cluster, by_digest, decisions, live, plain, scanning

NEW = "jack-o-lantern"
FILES = ("learned-bomb", "learned-jack-o-lantern", "harmless-watermelon")


@dataclass(frozen=True)
class Story:
    """Two scans of one folder, the later one with a concept more."""

    catalogue: Path
    state: Path
    earlier: int
    said: str


@pytest.fixture(scope="module")
def first(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Without the concept."""
    folder = tmp_path_factory.mktemp("rescan")
    (folder / "loras").mkdir()
    (folder / "state").mkdir()
    for name in FILES:
        shutil.copy(ADAPTERS / f"{name}.safetensors", folder / "loras")
    library = folder / "library"
    shutil.copytree(EMBEDDED_LIBRARY, library)
    ConceptLibrary.open(library).remove(NEW)
    variables = {"LORAGATE_LIBRARY": str(library)}
    with scanning(cluster, "scan", folder / "loras", folder / "state", variables=variables) as scan:
        assert scan.wait() == 0, scan.said
    return Story(folder / "loras", folder / "state", len(decisions(folder / "state")), scan.said)


@pytest.fixture(scope="module")
def second(cluster: Cluster, first: Story) -> Story:
    """With all of the library."""
    with scanning(cluster, "scan", first.catalogue, first.state) as scan:
        assert scan.wait() == 0, scan.said
        return Story(first.catalogue, first.state, first.earlier, scan.said)


@pytest.mark.timeout(300)
def test_a_scan_says_what_it_is_of_beside_its_results(first: Story) -> None:
    [file] = first.state.glob(f"catalogue/*/{FACTS}")
    facts = json.loads(file.read_text())
    assert facts["source"] == str(first.catalogue)
    assert NEW not in facts["fed"]
    assert "known from" not in first.said


@pytest.mark.timeout(300)
def test_the_later_scan_decides_again_and_says_what_was_known(second: Story) -> None:
    assert len(decisions(second.state)) == 2 * second.earlier == 2 * len(FILES)
    assert "files whose response stage is known from earlier scans: 1\n" in second.said
    assert "1 of 2 responses known from before" in second.said


@pytest.mark.parametrize("name", daily(FILES[0], FILES[2], of=FILES))
def test_its_verdict_is_that_of_a_live_server_with_the_concept(
    name: str, second: Story, tmp_path: Path
) -> None:
    found = live([second.catalogue / f"{name}.safetensors"], tmp_path / "live")
    later = by_digest(sorted(decisions(second.state), key=lambda one: one.decided_at))
    [(digest, one)] = found.items()
    assert plain(one) == plain(later[digest])
