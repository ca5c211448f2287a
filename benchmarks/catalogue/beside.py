"""What the job is compared with: a live server, the one-by-one command, an engine by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from loragate import AuditClient
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.app.folders import served_library
from loragate_server.app.startup import serve_bases
from loragate_server.audit.uses import Member
from loragate_server.config.schema import Config
from loragate_server.gate.measuring import member_of
from loragate_server.intake.reader import read_adapter
from loragate_server.progress import Leash
from loragate_server.record.verdict import Verdict
from loragate_server.testing import SHARED_CACHE, environment, server_process

from benchmarks.catalogue.found import decisions, digest_of  # isort: skip


def same_as_live(sample: list[Path], state: Path, scanned: Path) -> dict[str, int]:
    """How many files of the sample have the same evidence and the same verdict from a live server.

    The evidence is compared to the last bit. A verdict also rests on what is on record as blocked,
    so the server gets a copy of the record of the scan; it makes every decision anew, for its
    cache is empty. What was decided before its kin was blocked may be judged more strictly now.
    """
    shutil.rmtree(state)
    state.mkdir()
    for name in ("loragate.sqlite3", "decisions.jsonl"):
        shutil.copy(scanned / name, state / name)
    before = {one.decision_id for one in decisions(scanned)}
    with (
        server_process(state, {"LORAGATE_THREADS": "1"}) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=300) as client,
    ):
        for path in sample:
            client.audit_file(path)
    wanted = {sha256(path.read_bytes()).hexdigest() for path in sample}
    of_scan = {digest_of(one): one for one in decisions(scanned) if digest_of(one) in wanted}
    live = {digest_of(one): one for one in decisions(state) if one.decision_id not in before}
    same = [(one, of_scan[digest]) for digest, one in live.items()]
    return {
        "files": len(same),
        "same_evidence": sum(_evidence(one) == _evidence(other) for one, other in same),
        "same_verdict": sum(one.decision.verdict is other.decision.verdict for one, other in same),
        "other_verdict_by_lineage": sum(
            one.decision.verdict is not other.decision.verdict and _by_lineage(one, other)
            for one, other in same
        ),
    }


def same_in_order(sample: list[Path], folder: Path) -> dict[str, int]:
    """How many files have the same verdict from a live server that is asked in a scan's order.

    A verdict rests on what was decided before, so the sample is scanned with an empty record, and a
    server with another one is asked in the order in which the scan decided.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source, scanned, live = (folder / name for name in ("source", "scanned", "live"))
    for made in (source, scanned, live):
        made.mkdir(parents=True)
    for path in sample:
        shutil.copy(path, source)
    subprocess.run(
        [sys.executable, "-m", "loragate_server", "catalogue", "scan", str(source)],
        env=environment(scanned, {"LORAGATE_THREADS": "1"}),
        check=True,
        capture_output=True,
    )
    of_scan = sorted(decisions(scanned), key=lambda one: one.decided_at)
    files = {sha256(path.read_bytes()).hexdigest(): path for path in sample}
    with (
        server_process(live, {"LORAGATE_THREADS": "1"}) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=300) as client,
    ):
        for one in of_scan:
            client.audit_file(files[digest_of(one)])
    told = {digest_of(one): one.decision.verdict for one in decisions(live)}
    same = sum(told.get(digest_of(one)) is one.decision.verdict for one in of_scan)
    return {"files": len(of_scan), "same_verdict": same}


def _evidence(verdict: Verdict) -> str:
    evidence = verdict.decision.evidence
    adapters = tuple(replace(one, same_weights_as=()) for one in evidence.adapters)
    return repr(replace(evidence, stage_times_s={}, adapters=adapters))


def _by_lineage(*verdicts: Verdict) -> bool:
    return any(one.basis is not None and one.basis.kin for one in verdicts)


def one_by_one(sample: list[Path], folder: Path) -> dict[str, float]:
    """Seconds per file of `loragate scan`, with its start and without."""
    for left_over in ("few", "many", "state-few", "state-many"):
        shutil.rmtree(folder / left_over, ignore_errors=True)
    few = folder / "few"
    few.mkdir()
    shutil.copy(sample[0], few)
    start_s = _timed_scan(few, folder / "state-few")
    many = folder / "many"
    many.mkdir()
    for path in sample:
        shutil.copy(path, many)
    all_s = _timed_scan(many, folder / "state-many")
    rest = max(1, len(sample) - 1)
    return {"files": float(len(sample)), "start_s": start_s, "per_file_s": (all_s - start_s) / rest}


def _timed_scan(files: Path, state: Path) -> float:
    state.mkdir()
    began = time.monotonic()
    command = [sys.executable, "-m", "loragate", "scan", str(files), "--state", str(state)]
    ended = subprocess.run(
        command, env=environment(state, {}), capture_output=True, text=True, check=False
    )
    if ended.returncode not in (0, 1, 2):
        raise RuntimeError(ended.stderr)
    return time.monotonic() - began


def gains(clear: Path, suspect: Path, state: Path) -> dict[str, float]:
    """Milliseconds per file of an engine that is given 1, 8 or 32 clear files, or 4 suspects."""
    torch.set_num_threads(1)
    config = Config(state_dir=state, cache_dir=SHARED_CACHE)
    [served] = serve_bases(config, served_library(config))

    def members(path: Path, count: int) -> list[list[Member]]:
        data = path.read_bytes()
        stored = StoredFile(sha256(data).hexdigest(), len(data), path)
        one = member_of(read_adapter(stored, served.base), (Strength(),), optional=False)
        shares = [Strength(1 - number / 100, 1.0) for number in range(count)]
        return [[replace(one, strengths=(share,))] for share in shares]

    def each_ms(work: Callable[[], object], count: int) -> float:
        work()  # sizes are tried out at the first time
        began = time.monotonic()
        work()
        return 1000 * (time.monotonic() - began) / count

    found: dict[str, float] = {}
    for name, path, counts in (("clear", clear, (1, 8, 32)), ("suspect", suspect, (1, 4))):
        for count in counts:
            asked = members(path, count)
            found[f"{name}_{count}_together_ms"] = each_ms(
                lambda asked=asked: served.engine.audit_many(asked, Leash()), count
            )
    return found
