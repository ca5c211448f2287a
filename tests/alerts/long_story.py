"""What takes hours and days, each at a time scale of its own: neglect, drift, a leak of errors.

Everything is real, as in the short story. That one cannot hold these: the faster time runs, the
shorter are the windows, and some need a server to start again within one.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from loragate import AuditClient
from loragate_server.config.schema import EMBEDDED_LIBRARY, EMBEDDED_PIPELINE
from loragate_server.testing import ServerProcess, server_process
from testkit.load import ADAPTERS
from testkit.monitoring import free_port
from testkit.servers import forked_server
from testkit.waiting import eventually
from tests.alerts import faults
from tests.alerts.story import write
from tests.alerts.watch import Scale, Watch, watching

DAYS = Scale(2000, ("PolicyStale", "ReviewsWaiting", "InterceptionSeesNoAdapters", "EngineDiffers"))
BUDGET = Scale(200, ("ErrorBudgetBurnFast", "ErrorBudgetBurn", "ErrorBudgetBurnSlow"))
HOURS = Scale(10, ("Restarting", "AuditsFailing"))
HARMLESS = ADAPTERS / "harmless-sepia.safetensors"
QUESTIONS_PER_ERROR = 99
ERRORS = 60
"""Twice what the slow alert asks for: Prometheus sees some fewer than there were."""
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""A server that keeps no large piece of memory that it once had, so that it can run out of it."""


@dataclass
class LongStage:
    """The monitoring and one replica; the others come and go."""

    folder: Path
    watch: Watch
    server: ServerProcess
    policy: Path

    def scrape(self, *servers: str) -> None:
        """Every Prometheus scrapes these addresses."""
        for metrics in self.watch.metrics:
            metrics.scrape({"loragate": servers})


@contextmanager
def long_stage(folder: Path) -> Iterator[LongStage]:
    """Three Prometheus that watch one server, each in its own time."""
    with ExitStack() as stack:
        watch = stack.enter_context(watching(folder / "watch", (DAYS, BUDGET, HOURS)))
        faults.put_policy(policy := folder / "policy.yaml", faults.STRICTER)
        (state := folder / "server").mkdir()
        settings: dict[str, object] = {
            "policy": str(policy),
            "threads": 1,
            "intake": {"roots": [str(ADAPTERS)]},
            "intercept": {"extractors": {"sglang": {"kind": "sglang"}}, "http": True},
            "console": console_settings(folder),
        }
        config = write(folder / "server.yaml", settings)
        server = stack.enter_context(server_process(state, GIVES_BACK, config=config))
        on = LongStage(folder, watch, server, policy)
        on.scrape(server.http)
        eventually(lambda: all(one.query("loragate_build_info") for one in watch.metrics), 30)
        yield on


def console_settings(folder: Path) -> dict[str, object]:
    """A console, without which nobody can review and no review is counted."""
    (secret := folder / "session-secret").write_bytes(os.urandom(32))
    return {
        "enabled": True,
        "public_url": "http://127.0.0.1:8080",
        "auth": "proxy",
        "proxy": {"secret_header": "X-Proxy-Secret", "secret_file": str(secret)},
        "roles": {"reviewer": ["reviewers"]},
        "session_secret_file": str(secret),
    }


def be_neglected(on: LongStage) -> None:
    """Nobody looks at a review or mends a policy; requests change, and no adapter is seen."""
    faults.ask(on.server.grpc, faults.ROBOT)
    faults.put_policy(on.policy, faults.POLICY.replace("mode: enforce", "mode: strict"))
    see_adapters(on)
    with requests_without_adapters(on):
        differ(on)
        start_again_and_again(on)
        on.watch.expect("InterceptionSeesNoAdapters", "ReviewsWaiting", "PolicyStale")


def see_adapters(on: LongStage) -> None:
    """Requests that load an adapter, over some seconds, so that a scrape falls between them."""
    body = json.dumps({"lora_nickname": "style", "lora_path": str(HARMLESS)}).encode()
    for _ in range(60):
        check(on.server.http, "/v1/set_lora", body)
        threading.Event().wait(0.1)


@contextmanager
def requests_without_adapters(on: LongStage) -> Iterator[None]:
    """Goes on asking about requests that load none."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.03):
            check(on.server.http, "/v1/images/generations", b'{"prompt": "a boat"}')

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            stop.set()
            running.result()


def check(http: str, uri: str, body: bytes) -> None:
    """Asks as a proxy does. What is denied is an answer too."""
    headers = {
        "X-Original-Method": "POST",
        "X-Original-URI": uri,
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"http://{http}/v1/check", data=body, headers=headers)
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as denied:
        denied.close()


def differ(on: LongStage) -> None:
    """A second replica whose base model has the same name and is another."""
    pipeline = shutil.copytree(EMBEDDED_PIPELINE, on.folder / "pipeline")
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + "\n")
    settings: dict[str, object] = {
        "threads": 1,
        "base_models": [{"name": "emoji-tiny", "folder": str(pipeline)}],
        "library": str(few_concepts(on.folder / "library")),
    }
    (state := on.folder / "other").mkdir()
    config = write(on.folder / "other.yaml", settings)
    with forked_server(state, config=config) as other:
        on.scrape(on.server.http, other.http)
        on.watch.expect("EngineDiffers")
        on.scrape(on.server.http)


def few_concepts(folder: Path) -> Path:
    """A library whose probes are built in a moment."""
    shutil.copytree(EMBEDDED_LIBRARY, folder)
    file = folder / "library.yaml"
    library = yaml.safe_load(file.read_text())
    forbidden = [one for one in library["concepts"] if one["role"] == "forbidden"]
    neutral = [one for one in library["concepts"] if one["role"] == "neutral"]
    library["concepts"] = forbidden[:1] + neutral[:8]
    file.write_text(yaml.safe_dump(library))
    return folder


def start_again_and_again(on: LongStage) -> None:
    """A replica that ends soon after each start, at the same address."""
    address = f"127.0.0.1:{free_port()}"
    (state := on.folder / "restarting").mkdir()
    hours = on.watch.metrics[-1]
    on.scrape(on.server.http, address)
    began = f'process_start_time_seconds{{instance="{address}"}}'

    def scraped() -> bool:
        return bool(hours.query(began))

    for _ in range(4):
        with forked_server(state, {"LORAGATE_LISTEN__HTTP": address}) as server:
            eventually(scraped, 10)
            if server.http != address:
                raise RuntimeError(f"the server listens on {server.http}, not on {address}")
    on.watch.expect("Restarting")
    on.scrape(on.server.http)


def leak_errors(on: LongStage) -> None:
    """One question in a hundred gets no decision: few for an hour, too many for a month."""
    data = HARMLESS.read_bytes()
    with AuditClient(on.server.grpc, on_unavailable="raise", timeout=60) as client:
        for _ in range(ERRORS):
            for _ in range(QUESTIONS_PER_ERROR):
                client.audit(data)
            faults.ask(on.server.grpc, faults.BOMB, timeout_s=0.1)
    on.watch.expect("ErrorBudgetBurn")
    on.watch.expect("ErrorBudgetBurnSlow", patience_s=60)


def run_out_of_memory(on: LongStage) -> None:
    """The server may take no more memory than it has, so that audits fail and questions do not."""
    with faults.no_more_memory(on.server.pid):
        for _ in range(5):
            faults.ask(on.server.grpc, faults.BOMB)
    on.watch.expect("AuditsFailing")
