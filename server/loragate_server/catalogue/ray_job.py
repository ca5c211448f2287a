"""The stages on Ray Data. The one module that knows Ray; it is loaded when a job begins.

Ray Data streams: a stage is given more only while those behind it keep up, by tasks and by bytes,
and a task whose process died is run again elsewhere.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from loragate_server.catalogue.auditing import Auditor, Question
from loragate_server.catalogue.claims import Claim, Claims
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.hanging import guarded
from loragate_server.catalogue.tables import audited_rows, read_table
from loragate_server.gate.bases import ServedBase

_log = logging.getLogger(__name__)

READER_CPUS = 0.5
"""Of a reader, which waits for disk or network half the time. Another number than an auditor's:
stages with equal needs are put into one process, and then nothing is read while it audits."""

_FOLDER = "lg-ray-"
"""Begins the name of a local instance's folder; the number of its process follows."""

_TOKEN = secrets.token_hex(32)
"""For all local instances of this process: Ray reads it once."""

_LONGEST_FOLDER = 44
"""Bytes: Ray makes sockets in it whose paths are 62 longer, and 107 are allowed."""


@dataclass(frozen=True)
class Machines:
    """What a job runs on.

    Attributes:
        address: of a cluster; "" for this machine without one.
        auditors: processes that hold a base model each.
        readers: processes that read and check files.
        gpus: of each auditor; 0 for CPUs.
        batch: files per launch.
        store_bytes: of the shared memory of a local instance, in which files wait.
    """

    address: str = ""
    auditors: int = 1
    readers: int = 1
    gpus: float = 0.0
    batch: int = 32
    store_bytes: int = 256 << 20


@contextmanager
def ray_instance(machines: Machines) -> Iterator[None]:
    """Ray, while the block runs: the cluster, or an instance of our own on this machine.

    Raises:
        ConnectionError: there is no cluster at the address.
    """
    # A thread that still waits for a row at the end would begin another instance.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if not machines.address:
        # Ray listens on all addresses, and whoever it lets in can run code.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    import ray

    folder = _own_folder()
    # Nobody is told that it is used: auditors must reach nothing but what they audit.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray puts a handler of its own in place of ours, which ends the process on the spot.
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), _without_our_settings():
        warnings.simplefilter("ignore")  # Ray's own, about its own future
        if machines.address:
            ray.init(address=machines.address, **common)
        else:
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=machines.auditors + machines.readers,  # READER_CPUS is less
                object_store_memory=machines.store_bytes,
                include_dashboard=False,
                _temp_dir=str(folder),
                **common,
            )
    signal.signal(signal.SIGTERM, handler)
    told = logging.getLogger("ray.data.exceptions")
    told.disabled = False
    try:
        yield
    finally:
        told.disabled = True  # a job that is ended early would fill pages with that
        ray.shutdown()
        # Which leaves none: a source that is followed would no longer be left in order.
        signal.signal(signal.SIGTERM, handler)
        _tell_of_hangs(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_our_settings() -> Iterator[None]:
    """What is begun inside gets none of our variables: who opens files needs no password.

    Auditors are told what they have to know.
    """
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.upper().startswith("LORAGATE_")  # as settings are read
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def run(
    entries: Iterator[Entry],
    machines: Machines,
    *,
    intake_json: str,
    serve: Callable[[], ServedBase],
    question: Question,
    recorded: Sequence[str],
    responses: Mapping[str, bytes],
) -> Iterator[dict[str, Any]]:
    """Reads and audits files; rows of `Auditor.audit` come as they are done, in any order.

    Args:
        entries: of the source.
        machines: what it runs on, inside `ray_instance`.
        intake_json: the section `intake`.
        serve: makes a base model with its engine in a process of the job; has to be picklable.
        question: what is the same for all files.
        recorded: keys of files that have their decision.
        responses: what is known of files from before, see `earlier`.
    """
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    blocks = []
    while rows := [entry.row for entry in islice(entries, machines.batch)]:
        blocks.append(pa.Table.from_pylist(rows))
    if not blocks:
        return
    claims = ray.remote(num_cpus=0)(Claims).remote(recorded, responses)
    dataset: Any = ray.data.from_arrow(blocks)
    found = dataset.map_batches(
        read_table,
        fn_kwargs={"intake_json": intake_json},
        batch_size=None,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=machines.readers),
        num_cpus=READER_CPUS,
    ).map_batches(
        _Audit,
        fn_constructor_args=(serve, question, claims),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=machines.auditors),
        num_cpus=0 if machines.gpus else 1,
        num_gpus=machines.gpus or None,
    )
    for batch in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        yield from batch.to_pylist()


class _Audit:
    """`Auditor` in a process of its own."""

    def __init__(self, serve: Callable[[], ServedBase], question: Question, claims: Any) -> None:
        guard = partial(guarded, question.stuck_after_s)
        self._auditor = Auditor(serve, question, _Elsewhere(claims), guard)

    def __call__(self, table: Any) -> Iterator[Any]:
        import pyarrow as pa

        rows = table.to_pylist()
        yield pa.Table.from_pylist(list(self._auditor.audit(rows)), audited_rows())


class _Elsewhere:
    """`Claims` in a process of their own, as `ClaimBook`."""

    def __init__(self, claims: Any) -> None:
        self._claims = claims

    def claim(self, files: Sequence[tuple[str, str]]) -> list[Claim]:
        return [Claim(one) for one in _get(self._claims.claim.remote(list(files)))]

    def responses(self, keys: Sequence[str]) -> list[bytes]:
        found: list[bytes] = _get(self._claims.responses.remote(list(keys)))
        return found

    def begin_alone(self, key: str) -> None:
        _get(self._claims.begin_alone.remote(key))

    def end(self, keys: Sequence[str]) -> None:
        _get(self._claims.end.remote(list(keys)))


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _tell_of_hangs(folder: Path) -> None:
    """Logs where auditors of a local instance hung, before its own logs go."""
    for file in folder.glob("session_2*/logs/worker-*.err"):
        with suppress(OSError):
            _, found, where = file.read_text("utf-8", "replace").partition("Timeout (")
            if found:
                _log.error("an auditor gave no sign of life: %s%s", found, where.strip())


def _own_folder() -> Path:
    """A new folder for a local instance. Those of processes that were killed are removed."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) + len(f"/{_FOLDER}{os.getpid()}-12345678") > _LONGEST_FOLDER:
        parent = Path("/tmp")  # noqa: S108 - the folder itself is made for us alone
    for folder in parent.glob(f"{_FOLDER}*"):
        number = folder.name.split("-")[2]
        killed = number.isdecimal() and not Path("/proc", number).exists()
        with suppress(FileNotFoundError):  # another scan tidies up as well
            if killed and folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=parent))
