"""A catalogue of small adapters as one job.

`python -m benchmarks.catalogue --adapters 20000` derives adapters from the shipped ones by
rescaling and merging, adds files that are none, scans them while the driver is killed at 30 % and
70 %, and compares a sample with a live server and with the one-by-one command.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.catalogue.beside import gains, one_by_one, same_as_live
from benchmarks.catalogue.plan import plan
from benchmarks.catalogue.played import play
from benchmarks.report import write
from testkit.derived_adapters import ADAPTERS, CLEAR, LEARNED, derived

KILLED_AT = [0.3, 0.7]


def main(
    adapters: Annotated[int, typer.Option(help="How many are derived.")] = 20_000,
    clear: Annotated[float, typer.Option(help="Share that ends at the screen.")] = 0.9,
    auditors: Annotated[int, typer.Option(help="Processes that audit.")] = 2,
    sample: Annotated[int, typer.Option(help="Files compared with a live server.")] = 200,
    alone: Annotated[int, typer.Option(help="Files for the one-by-one command.")] = 20,
    kill: Annotated[bool, typer.Option(help="Kill the driver twice.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where files and states lie.")] = None,
) -> None:
    """Plays it, and writes `results/catalogue`."""
    work = Path(tempfile.mkdtemp(prefix="catalogue-", dir=folder))
    try:
        source, state = work / "source", work / "state"
        state.mkdir()
        files = _files(source, adapters, clear)
        options = ["--auditors", str(auditors)]
        played = play(source, state, adapters, options, KILLED_AT if kill else [])
        chosen = random.Random(3).sample(files, min(sample, len(files)))
        (work / "live").mkdir()
        compared = same_as_live(chosen, work / "live", state)
        single = one_by_one(chosen[: min(alone, len(chosen))], work)
        together = gains(CLEAR, LEARNED, work / "gains")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    paper = plan(played, together, auditors)
    result: dict[str, object] = {
        "auditors": auditors,
        "clear_share": clear,
        "scan": {**asdict(played), "per_s": played.per_s},
        "live": compared,
        "one_by_one": single,
        "together": together,
        "plan": paper,
    }
    rows = [("files", adapters), ("auditors", auditors), ("files a second", f"{played.per_s:.2f}")]
    rows += [
        ("of it ended at the screen", played.stages.get("screen", 0)),
        ("of it went to the response stage", played.stages.get("response", 0)),
        ("decisions on record when the driver was killed", played.kills),
        ("seconds from start to first decision", [round(one) for one in played.start_s]),
        ("digests with two decisions", played.twice),
        ("files without a result", played.lost),
        ("processes that outlived their driver", played.left_over),
        ("memory of all processes by share done, MiB", _by_share(played.rss_mib)),
        ("refused", played.poison),
        ("compared with a live server", compared["files"]),
        ("of it with the same evidence to the last bit", compared["same_evidence"]),
        ("of it with the same verdict", compared["same_verdict"]),
        ("one by one, seconds a file", f"{single['per_file_s']:.2f}"),
        ("one by one, seconds to start", f"{single['start_s']:.0f}"),
    ]
    rows += [(f"engine, {key}", f"{value:.1f}") for key, value in together.items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    paper_rows = "\n".join(f"| {name} | {value:.3g} |" for name, value in paper.items())
    write(
        "catalogue",
        result,
        f"| measure | value |\n|---|---|\n{table}\n\n"
        "On paper, 10^6 adapters and 10^3 concepts at the rates above (docs/catalogue.md):\n\n"
        f"| figure | value |\n|---|---|\n{paper_rows}",
    )
    if played.twice or played.lost or compared["same_evidence"] != compared["files"]:
        raise typer.Exit(1)


def _files(source: Path, adapters: int, clear: float) -> list[Path]:
    others = [path for path in sorted(ADAPTERS.glob("*.safetensors")) if path != CLEAR]
    count = round(adapters * clear)
    made = list(derived([CLEAR], source / "clear", count))
    made += derived(others, source / "others", adapters - count, seed=8)
    bad = source / "bad"
    bad.mkdir()
    (bad / "cut.safetensors").write_bytes(LEARNED.read_bytes()[:4000])
    (bad / "pickle.safetensors").write_bytes(b"PK\x03\x04" + bytes(2000))
    (bad / "empty.safetensors").touch()
    (bad / "noise.safetensors").write_bytes(random.Random(1).randbytes(3000))
    return made


def _by_share(rss_mib: dict[str, float]) -> str:
    return ", ".join(f"{share}: {value:.0f}" for share, value in rss_mib.items())


if __name__ == "__main__":
    typer.run(main)
