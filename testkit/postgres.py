"""A real PostgreSQL server of one's own, in a temporary folder and on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg


class PostgresMissingError(Exception):
    """PostgreSQL is not installed."""


class PostgresServer:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        """Makes an empty cluster in a folder of its own."""
        self._folder = folder
        self._binaries = binaries
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N",
            "-E", "UTF8", "--locale=C",
        )  # fmt: skip

    def start(self) -> None:
        """Starts it; returns when it takes connections."""
        options = f"-c listen_addresses='' -k {self._folder} -c fsync=off"
        log = f"{self._folder}/log"
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stops it as a crash would."""
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-w", "-m", "immediate", "stop")

    def new_database(self, encoding: str = "UTF8", tablespace: Path | None = None) -> str:
        """Creates an empty database, in a folder of its own if wanted; returns its URL."""
        name = f"t{uuid.uuid4().hex}"
        address = f"host={self._folder} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            made = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
            if tablespace is not None:
                connection.execute(f"CREATE TABLESPACE s{name} LOCATION '{tablespace}'")
                made += f" TABLESPACE s{name}"
            connection.execute(made)
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def dump(self, database_url: str, file: Path) -> None:
        """Writes a database to a file as an operator would, while others use it."""
        self._client("pg_dump", "--format=custom", f"--file={file}", f"--dbname={database_url}")

    def restore(self, database_url: str, file: Path) -> None:
        """Reads such a file into an empty database."""
        self._client("pg_restore", "--exit-on-error", f"--dbname={database_url}", str(file))

    def _client(self, program: str, *arguments: str) -> None:
        subprocess.run([self._binaries / program, *arguments], check=True, capture_output=True)

    def _run(self, program: str, *arguments: str) -> None:
        # By a program: to change the user itself, Python would fork, which threads of gRPC in
        # this process do not survive on a busy machine.
        user = self._user
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        subprocess.run(
            [*become, self._binaries / program, *arguments],
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        )


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs.

    Raises:
        PostgresMissingError: PostgreSQL is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise PostgresMissingError(
            "PostgreSQL is not installed; scripts/install_test_tools.sh brings it"
        )
    # Not below folders that the user of the server may not enter. Sockets need it short.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = PostgresServer(folder, found[-1].parent)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder)
