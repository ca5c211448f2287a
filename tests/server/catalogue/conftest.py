"""What tests of catalogues share: a cluster that many scans run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.catalogue.scans import Cluster, ray_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Ray, started once."""
    with ray_cluster() as found:
        yield found
