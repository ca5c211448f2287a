"""Claims, progress and results: the parts of a scan that need neither Ray nor a model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loragate_server.catalogue.claims import Claim, Claims
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.known import Noted, failed_places, known_places, remaining
from loragate_server.catalogue.listing import open_source
from loragate_server.catalogue.progress import Progress
from loragate_server.catalogue.results import PART_ROWS, Results, held, parts_in, read_parts
from testkit.derived_adapters import CLEAR


def test_a_file_is_audited_for_the_place_that_comes_first() -> None:
    claims = Claims(["recorded"])
    assert claims.claim([("recorded", "/a"), ("new", "/b"), ("new", "/c")]) == [
        Claim.SAME,
        Claim.AUDIT,
        Claim.SAME,
    ]


def test_what_is_claimed_again_from_its_place_was_interrupted_and_goes_alone_then() -> None:
    claims = Claims()
    claims.claim([("one", "/1"), ("two", "/2")])
    claims.end(["two"])
    assert claims.claim([("one", "/1"), ("two", "/2")]) == [Claim.ALONE, Claim.AUDIT]


def test_what_kills_a_process_that_looks_at_it_alone_is_poison() -> None:
    claims = Claims()
    claims.claim([("one", "/1"), ("two", "/2")])
    assert claims.claim([("one", "/1"), ("two", "/2")]) == [Claim.ALONE, Claim.ALONE]
    claims.begin_alone("one")
    claims.end(["one"])
    claims.begin_alone("two")
    assert claims.claim([("one", "/1"), ("two", "/2")]) == [Claim.AUDIT, Claim.POISON]


def test_progress_tells_rate_and_remaining_time_of_this_run() -> None:
    now_s = 100.0
    progress = Progress(total=100, before=20, clock=lambda: now_s)
    assert progress.left_s is None
    for _ in range(40):
        now_s += 0.5
        progress.add("decided")
    assert progress.left == 40
    assert progress.per_s == 2.0
    assert progress.left_s == 20.0
    assert progress.line == "60 of 100 files (60%), 2.00 a second, 40 decided, 0 min 20 s left"
    now_s += 7
    assert progress.idle_s == 7


def test_the_rate_is_that_of_the_last_minutes() -> None:
    now_s = 0.0
    progress = Progress(total=10_000, clock=lambda: now_s)
    for step in (1.0, 0.1):
        for _ in range(3000 if step == 0.1 else 500):
            now_s += step
            progress.add("decided")
    assert 9.5 < progress.per_s < 10.5


def test_results_are_whole_parts_and_go_on_behind_those_that_are_there(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for number in range(PART_ROWS + 1):
        results.add({"location": f"/{number}", "outcome": "decided", "reasons": ["x"]})
    assert len(parts_in(tmp_path)) == 1  # the other row is not on disk yet
    (tmp_path / ".part-000002").write_text("torn by a kill")
    again = Results(tmp_path)
    again.add({"location": "/last", "outcome": "refused", "reason": "FILE_EMPTY"})
    again.flush()
    again.flush()
    assert [path.name for path in parts_in(tmp_path)] == [
        "part-000001.parquet",
        "part-000002.parquet",
    ]
    assert sum(len(batch) for batch in read_parts(tmp_path)) == PART_ROWS + 1


def test_what_failed_for_reasons_that_may_have_gone_is_looked_at_again_where_wanted(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    for place, reason in (("/net", "SOURCE_UNREADABLE"), ("/pickle", "PICKLE_REFUSED")):
        results.add({"location": place, "outcome": "refused", "reason": reason})
    results.add({"location": "/fine", "outcome": "decided"})
    results.flush()
    known = known_places(tmp_path)
    assert {place: one.refused for place, one in known.items()} == {
        "/net": True,
        "/pickle": True,
        "/fine": False,
    }
    assert failed_places(known) == {"/net"}
    listed = [Entry(place) for place in known]
    assert [one.location for one in remaining(iter(listed), known, {"/net"})] == ["/net"]


def test_what_is_known_grows_with_the_rows_that_are_added(tmp_path: Path) -> None:
    noted = Noted(Results(tmp_path), {})
    noted.add({"location": "/1", "version": "7 7", "outcome": "decided"})
    noted.add({"location": "/2", "version": "", "outcome": "refused", "reason": "FILE_EMPTY"})
    noted.results.flush()
    assert noted.known == known_places(tmp_path)


def test_two_scans_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with held(tmp_path / "scan") as first, held(tmp_path / "scan") as second:
        assert first
        assert not second
    with held(tmp_path / "scan") as again:
        assert again


def test_a_file_that_was_replaced_since_is_looked_at_again(tmp_path: Path) -> None:
    for name in ("same", "other"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    results = Results(tmp_path / "out")
    for entry in open_source(str(tmp_path)).entries():
        results.add({"location": entry.location, "version": entry.version, "outcome": "decided"})
    results.flush()
    known = known_places(tmp_path / "out")
    assert not list(remaining(open_source(str(tmp_path)).entries(), known))
    (tmp_path / "other.safetensors").write_text("longer than before")
    (tmp_path / "third.safetensors").touch()
    left = remaining(open_source(str(tmp_path)).entries(), known)
    assert [Path(one.location).stem for one in left] == ["other", "third"]


def test_a_file_is_looked_at_again_that_was_replaced_by_one_of_equal_size_and_time(
    tmp_path: Path,
) -> None:
    file = tmp_path / "one.safetensors"
    file.write_text("good")
    [before] = open_source(str(tmp_path)).entries()
    old = file.stat()
    file.write_text("evil")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    [after] = open_source(str(tmp_path)).entries()
    assert file.stat().st_mtime_ns == old.st_mtime_ns
    assert before.version != after.version


def test_a_file_is_looked_at_again_when_the_configuration_beside_it_changes(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.safetensors").write_text("weights")
    [without] = open_source(str(tmp_path)).entries()
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1}')
    [first] = open_source(str(tmp_path)).entries()
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 16}')
    [second] = open_source(str(tmp_path)).entries()
    assert len({without.version, first.version, second.version}) == 3


def test_a_folder_that_a_manifest_names_is_looked_at_again_when_a_file_in_it_changes(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    weights, config = (tmp_path / "one" / name for name in ("a.safetensors", "adapter_config.json"))
    weights.write_text("good")
    manifest = tmp_path / "today.jsonl"
    manifest.write_text('{"path": "one"}')
    [first] = open_source(str(manifest)).entries()
    weights.write_text("evil")  # into the same file, which the folder knows nothing of
    [second] = open_source(str(manifest)).entries()
    config.write_text('{"lora_alpha": 16}')
    [third] = open_source(str(manifest)).entries()
    assert len({first.version, second.version, third.version}) == 3
    assert third.changed_unix_s == config.stat().st_mtime


def test_a_process_that_reads_files_loads_no_torch() -> None:
    script = (
        "import sys\n"
        "import pyarrow as pa\n"
        "from loragate_server.catalogue.entry import Entry\n"
        "from loragate_server.catalogue.tables import read_table\n"
        "from loragate_server.config.intake import IntakeSection\n"
        "asked = pa.Table.from_pylist([Entry(sys.argv[1]).row])\n"
        "settings = IntakeSection(roots=[sys.argv[2]]).model_dump_json()\n"
        "[table] = read_table(asked, settings)\n"
        "[row] = table.to_pylist()\n"
        "assert row['size_bytes'] == len(row['data']) > 0, row\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(CLEAR), str(CLEAR.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
