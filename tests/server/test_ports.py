"""An address that cannot be listened on is refused before models are loaded, with a remedy."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragate_server.app.ports import GRPC, HTTP, require_free
from loragate_server.config.schema import StartError
from testkit.servers import forked_command


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def refusal(address: str, port: str = GRPC) -> str:
    with pytest.raises(StartError) as caught:
        require_free(address, port)
    return str(caught.value)


@pytest.mark.parametrize("port", [GRPC, HTTP])
def test_a_port_that_is_taken_is_refused_with_the_flag_that_names_another(
    taken: str, port: str
) -> None:
    assert refusal(taken, port) == (
        f"cannot listen on {taken}: another process listens there. Stop it, or name another "
        f"address with --{port} (listen.{port})."
    )


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "0.0.0.0:0"])
def test_a_free_port_is_left_free(address: str) -> None:
    require_free(address, GRPC)
    require_free(address, GRPC)


@pytest.mark.parametrize("address", ["192.0.2.1:5000", "no-such-host.invalid:5000"])
def test_an_address_of_another_machine_is_refused(address: str) -> None:
    assert "this machine has no such address" in refusal(address)


def test_a_socket_file_that_somebody_answers_on_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert "another process listens there" in refusal(f"unix:{path}")
    require_free(f"unix:{path}", GRPC)  # nobody answers any more
    assert "there is no folder" in refusal(f"unix:{tmp_path}/nowhere/gate.sock")


def test_a_server_whose_port_is_taken_ends_with_one_line_before_it_loads_a_model(
    taken: str, tmp_path: Path
) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    words = ["serve", "--state-dir", str(tmp_path), "--grpc", taken, "--http", "127.0.0.1:0"]
    done = forked_command(words, clean)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [f"loragate-server: {refusal(taken)}"]
    assert not (tmp_path / "probes").exists()
