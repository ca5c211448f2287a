"""What tests of every room of the server need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loragate_server.record import recorder
from testkit import tables


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once() -> Iterator[None]:
    """Hundreds of recorders begin with new tables; making them takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "upgrade", tables.upgrade)
        yield
