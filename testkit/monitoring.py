"""Prometheus, Alertmanager and a receiver, each a real process or server on a free port."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testkit.waiting import eventually

START_LIMIT_S = 20.0
PROGRAMS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")


def missing_programs() -> list[str]:
    """What scripts/install_test_tools.sh has not installed yet."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        url: of its HTTP port.
        targets: the file that names what it scrapes.
    """

    url: str
    targets: Path

    def scrape(self, jobs: Mapping[str, Sequence[str]]) -> None:
        """Scrapes these addresses from now on, by job."""
        groups = [
            {"targets": list(addresses), "labels": {"job": job, "namespace": "images"}}
            for job, addresses in jobs.items()
        ]
        # In one step: a half-written file would be an error in its log.
        partial = self.targets.with_suffix(".partial")
        partial.write_text(json.dumps(groups))
        partial.replace(self.targets)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query.

        Raises:
            ValueError: Prometheus refuses the expression.
        """
        return self._get("query", {"query": expression})

    def range(self, expression: str, start_s: float, step_s: float) -> list[dict[str, Any]]:
        """The result of a query from `start_s` to now."""
        now_s = time.time()
        times = {"start": str(start_s), "end": str(now_s), "step": str(step_s)}
        return self._get("query_range", {"query": expression, **times})

    def fired(self) -> set[str]:
        """Names of the alerts that have fired in the last hour."""
        found = self.query('last_over_time(ALERTS{alertstate="firing"}[1h])')
        return {one["metric"]["alertname"] for one in found}

    def _get(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{error.read().decode()} for {query['query']}") from None
        return result


@contextmanager
def prometheus(
    folder: Path, rules: Sequence[Path], alertmanager: str = "", interval: str = "1s"
) -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes and evaluates every `interval`.

    Args:
        folder: for its data, configuration and log.
        rules: files of rules.
        alertmanager: address of the Alertmanager that it tells.
        interval: between scrapes, and between evaluations where the rules say nothing else.
    """
    folder.mkdir(parents=True)
    targets = folder / "targets.json"
    targets.write_text("[]")
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(file) for file in rules],
        "scrape_configs": [
            {"job_name": "all", "file_sd_configs": [{"files": [str(targets)]}]},
        ],
    }
    config["global"]["scrape_timeout"] = interval
    if alertmanager:
        managers = [{"static_configs": [{"targets": [alertmanager]}]}]
        config["alerting"] = {"alertmanagers": managers}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    command = (
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=1s",
        "--enable-feature=exemplar-storage",
    )
    url = f"http://127.0.0.1:{port}"
    with program(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield Prometheus(url, targets)


@contextmanager
def alertmanager(folder: Path, config: str) -> Iterator[str]:
    """Runs an Alertmanager; gives its address."""
    folder.mkdir(parents=True)
    file = folder / "alertmanager.yml"
    file.write_text(config)
    port = free_port()
    command = (
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    with program(command, folder / "alertmanager.log", f"http://127.0.0.1:{port}/-/ready"):
        yield f"127.0.0.1:{port}"


@contextmanager
def program(command: Sequence[str], log: Path, ready_url: str) -> Iterator[None]:
    """Runs a program for as long as the block lasts.

    Raises:
        RuntimeError: it is not ready in time; the message holds its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            if not eventually(lambda: _answers(ready_url), START_LIMIT_S):
                raise RuntimeError(f"{command[0]} is not ready:\n{log.read_text()}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=START_LIMIT_S)


@dataclass
class Receiver:
    """Whom Alertmanager tells. Keeps what it was told, by the path that was called."""

    url: str = ""
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def receivers(self, alert: str) -> set[str]:
        """The receivers that were told that this alert fires."""
        return {name for name, one in self.told if one["labels"]["alertname"] == alert}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listens for the webhooks of Alertmanager."""
    heard = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = self.path.strip("/")
            heard.told += [(name, one) for one in body["alerts"] if one["status"] == "firing"]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        heard.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
