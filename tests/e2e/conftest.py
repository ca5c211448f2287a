"""A real server process with the embedded base model, and the real SDK in front of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loragate import AuditClient
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the server may read, with the shipped adapters in it."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(ADAPTERS, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def root_stays_as_it_is(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves the folder of all tests otherwise than it found it."""
    yield
    if "root" in request.fixturenames:
        folder: Path = request.getfixturevalue("root")
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in ADAPTERS.iterdir()
        ), "a test writes into `scratch`, not into `root`"


@pytest.fixture
def scratch(root: Path) -> Iterator[Path]:
    """A folder inside `root` for the files of one test, gone after it."""
    folder = root / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[ServerProcess]:
    settings = {"LORAGATE_INTAKE__ROOTS": f'["{root}"]', "LORAGATE_REFLECTION": "true"}
    with forked_server(tmp_path_factory.mktemp("state"), settings) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[AuditClient]:
    with AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client:
        yield client


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts further servers, each with its own state folder and settings."""
    running = []

    def start(**settings: str) -> ServerProcess:
        state = tmp_path / f"state{len(running)}"
        state.mkdir()
        manager = forked_server(state, {f"LORAGATE_{k}": v for k, v in settings.items()})
        running.append(manager)
        return manager.__enter__()

    yield start
    for manager in running:
        manager.__exit__(None, None, None)
