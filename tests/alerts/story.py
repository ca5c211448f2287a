"""A day in the life of two replicas, in a minute: healthy first, then one fault after the other.

Everything is real: the servers, Prometheus with the shipped rules, Alertmanager with the routes.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import prometheus_client
import trustme
import yaml
from prometheus_client import CollectorRegistry

from loragate import AuditClient
from loragate.prometheus import register
from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.testing import ServerProcess
from testkit.load import healthy_load
from testkit.monitoring import Prometheus
from testkit.servers import forked_server
from testkit.waiting import eventually
from tests.alerts import faults
from tests.alerts.watch import PATIENCE_S, Scale, Watch, watching

FACTOR = 200


@dataclass
class Stage:
    """The monitoring and the servers.

    Attributes:
        alpha: the replica that things happen to.
        beta: one that was set up carelessly; Prometheus learns of it after the healthy time.
    """

    folder: Path
    metrics: Prometheus
    watch: Watch
    alpha: ServerProcess
    beta: ServerProcess
    alpha_policy: Path
    log_disk: Path | None
    sdk: str

    def scrape(self, *servers: ServerProcess) -> None:
        """Prometheus scrapes the servers and this process, which is an image server here."""
        addresses = [server.http for server in servers]
        self.metrics.scrape({"loragate": addresses, "image-server": [self.sdk]})


def alpha_config(folder: Path, policy: Path, log: Path) -> Path:
    """The configuration of the first replica."""
    return write(
        folder / "alpha.yaml",
        {
            "policy": str(policy),
            "decision_log": str(log),
            "threads": 1,
            "gate": {"queue_limit": 2},
            "intercept": {
                "extractors": {
                    "sglang": {"kind": "sglang"},
                    "comfyui": {"kind": "comfyui", "settings": {"lora_folder": "/loras"}},
                },
                "default_extractor": "sglang",
                "http": True,
                "relays": {"comfyui": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}},
            },
            "drain_grace_s": 60,
        },
    )


def beta_config(folder: Path) -> Path:
    """A replica in pilot mode whose doors run dry, with an old certificate and no calibration."""
    pipeline = shutil.copytree(EMBEDDED_PIPELINE, folder / "pipeline")
    faults.put_policy(
        policy := folder / "pilot.yaml", faults.POLICY.replace("mode: enforce", "mode: pilot")
    )
    ends = datetime.now(UTC) + timedelta(days=2)
    certificate = trustme.CA().issue_cert("127.0.0.1", not_after=ends)
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.pem")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    return write(
        folder / "beta.yaml",
        {
            "policy": str(policy),
            "threads": 1,
            "base_models": [{"name": "emoji-tiny", "folder": str(pipeline)}],
            "tls": {"cert": str(folder / "tls.pem"), "key": str(folder / "tls.key")},
            "intercept": {"extractors": {"sglang": {"kind": "sglang"}}, "dry_run": True},
        },
    )


def write(file: Path, settings: dict[str, object]) -> Path:
    """Writes a configuration."""
    file.write_text(yaml.safe_dump(settings))
    return file


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Prometheus, Alertmanager, a receiver and the first replica."""
    with ExitStack() as stack:
        watch = stack.enter_context(watching(folder / "watch", (Scale(FACTOR),)))
        [metrics] = watch.metrics
        disk = stack.enter_context(faults.small_disk(folder / "disk"))
        faults.put_policy(policy := folder / "policy.yaml", faults.POLICY)
        (state := folder / "alpha").mkdir()
        config = alpha_config(folder, policy, (disk or state) / "decisions.jsonl")
        (careless := folder / "beta").mkdir()
        starts = [
            forked_server(state, config=config),
            forked_server(careless, config=beta_config(folder)),
        ]
        with ThreadPoolExecutor(len(starts)) as pool:
            alpha, beta = pool.map(stack.enter_context, starts)
        sdk = stack.enter_context(sdk_metrics())
        made = Stage(folder, metrics, watch, alpha, beta, policy, disk, sdk)
        made.scrape(alpha)
        # Until then there is no server for Prometheus, and it is right to say so.
        if not eventually(lambda: known(metrics) and not metrics.query("ALERTS"), PATIENCE_S):
            raise RuntimeError(f"alerts before anything happened: {metrics.query('ALERTS')}")
        yield made


def known(metrics: Prometheus) -> bool:
    """Whether Prometheus sees a server."""
    return bool(metrics.query("loragate_build_info"))


@contextmanager
def sdk_metrics() -> Iterator[str]:
    """The /metrics page of an image server that asks loragate: of this process."""
    registry = CollectorRegistry()
    register(registry)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stay_healthy(on: Stage, seconds: float) -> set[str]:
    """Healthy load; the alerts that fired at any time.

    Two pages are never scraped at the same moment, so an alert about both may wait for a second.
    """
    began_s = time.time()
    with healthy_load(on.alpha.grpc):
        threading.Event().wait(seconds)
    found = on.metrics.range('ALERTS{alertstate="firing"}', began_s, 1.0)
    return {one["metric"]["alertname"] for one in found}


def go_wrong(on: Stage) -> None:
    """All the faults, in an order in which none hides another."""
    on.scrape(on.alpha, on.beta)
    flag_adapters(on)
    break_policy(on)
    faults.create_concept(on.alpha.grpc)
    run_out_of_time(on)
    break_record(on)
    saturate(on)
    on.watch.expect(
        "CalibrationStale", "LibraryDiffers", "FailOpenConfigured", "CertificateExpires"
    )
    on.watch.expect("CertificateExpiresSoon", told=False)
    stop_servers(on)


def flag_adapters(on: Stage) -> None:
    """Adapters that are blocked, for review, and not understood; the policies now differ."""
    faults.put_policy(on.alpha_policy, faults.STRICTER)
    faults.ask(on.alpha.grpc, faults.BOMB)
    for _ in range(15):
        faults.ask(on.alpha.grpc, faults.HARMLESS)
        faults.ask(on.alpha.grpc, faults.NOT_UNDERSTOOD)
    faults.ask(on.alpha.grpc, faults.ROBOT)
    on.watch.expect("AdapterBlocked", "AdapterForReview", "BlockRatioJump", "AuditsInconclusive")
    on.watch.expect("PolicyDiffers", "CalibrationMissing")


def break_policy(on: Stage) -> None:
    """A file that is not valid; then the old one is put back."""
    faults.put_policy(on.alpha_policy, faults.POLICY.replace("mode: enforce", "mode: strict"))
    on.watch.expect("PolicyRefused")
    faults.put_policy(on.alpha_policy, faults.POLICY)


def run_out_of_time(on: Stage) -> None:
    """Callers that do not wait long enough."""
    for _ in range(15):
        faults.ask(on.alpha.grpc, faults.BOMB, timeout_s=0.1)
    on.watch.expect("ErrorBudgetBurnFast")


def break_record(on: Stage) -> None:
    """Decision log, database, disk and store, one after the other."""
    state = on.folder / "alpha"
    with faults.blocked_path((on.log_disk or state) / "decisions.jsonl"):
        on.watch.expect("DecisionLogFailing")
    with faults.lost_database(state):
        on.watch.expect("DatabaseFailing")
    if on.log_disk is not None:
        with faults.full_disk(on.log_disk):
            on.watch.expect("DiskFull")
    faults.change_stored(state, faults.BOMB)
    faults.ask(on.alpha.grpc, faults.BOMB)
    on.watch.expect("StoreCorrupt")


def saturate(on: Stage) -> None:
    """More audits than one replica can do, after an hour of quick ones."""
    for _ in range(20):
        faults.ask(on.alpha.grpc, faults.NOT_UNDERSTOOD)
    with faults.asking(on.alpha.grpc, faults.BOMB, threads=6):
        on.watch.expect("QueueSaturated", "LatencyObjectiveMissed")


def stop_servers(on: Stage) -> None:
    """One replica drains for ever, the other is killed; then there is none."""
    with faults.endless_upload(on.alpha.grpc):
        os.kill(on.alpha.pid, signal.SIGTERM)
        on.watch.expect("ReplicaNotReady")
        os.kill(on.beta.pid, signal.SIGKILL)
        on.watch.expect("NoReplicaReady", "TargetDown")
        os.kill(on.alpha.pid, signal.SIGKILL)
        with (
            AuditClient(on.alpha.grpc, on_unavailable="allow", timeout=1) as client,
            client_keeps_asking(client),
        ):
            on.watch.expect("Absent", "FailOpenInUse", "NoAuditsWhileLoadsHappen")


@contextmanager
def client_keeps_asking(client: AuditClient) -> Iterator[None]:
    """An image server that goes on although nobody answers."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.5):
            client.audit(faults.NOT_UNDERSTOOD)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
