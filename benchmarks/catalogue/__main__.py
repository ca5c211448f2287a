"""A catalogue of small adapters as one job.

`python -m benchmarks.catalogue --adapters 20000` derives adapters from the shipped ones by
rescaling and merging, adds files that are none, scans them while the driver is killed at 30 % and
70 %, and compares a sample with a live server and with the one-by-one command. What it has done
lies in `--folder`: the same command again goes on where it was ended, whatever ended it.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.catalogue.beside import gains, one_by_one, same_as_live, same_in_order
from benchmarks.catalogue.found import Found, look
from benchmarks.catalogue.plan import SUSPECTS, plan
from benchmarks.catalogue.played import Played, play
from benchmarks.report import write
from loragate_server.files import whole_file
from testkit.derived_adapters import ADAPTERS, CLEAR, LEARNED, derived

KILLED_AT = [0.3, 0.7]


def main(
    adapters: Annotated[int, typer.Option(help="How many are derived.")] = 20_000,
    clear: Annotated[float, typer.Option(help="Share that ends at the screen.")] = 1 - SUSPECTS,
    auditors: Annotated[int, typer.Option(help="Processes that audit.")] = 2,
    batch: Annotated[int, typer.Option(help="Files per launch.")] = 32,
    sample: Annotated[int, typer.Option(help="Files compared with a live server.")] = 200,
    alone: Annotated[int, typer.Option(help="Files for the one-by-one command.")] = 50,
    kill: Annotated[bool, typer.Option(help="Kill the driver twice.")] = True,
    folder: Annotated[
        Path | None, typer.Option(help="Where files and states lie until it is done.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder.")] = False,
) -> None:
    """Plays it, and writes `results/catalogue`."""
    work = folder or Path(tempfile.gettempdir()) / f"loragate-catalogue-{adapters}"
    source, state = work / "source", work / "state"
    state.mkdir(parents=True, exist_ok=True)
    step = Steps(work)
    made = step("files", lambda: _files(source, adapters, clear))
    files = [source / one for one in made["files"]]
    options = ["--auditors", str(auditors), "--batch", str(batch)]
    played = play(source, state, adapters, options, KILLED_AT if kill else [])
    found = Found(**step("found", lambda: asdict(look(source, state))))
    chosen = _half_suspects(files, made["clear"], sample)
    (work / "live").mkdir(exist_ok=True)
    compared = step("live", lambda: same_as_live(chosen, work / "live", state))
    ordered = step("ordered", lambda: same_in_order(chosen, work / "ordered"))
    mixed = random.Random(4).sample(files, min(alone, len(files)))
    single = step("alone", lambda: one_by_one(mixed, work))
    together = step("gains", lambda: gains(CLEAR, LEARNED, work / "gains"))
    compared |= {f"ordered_{name}": value for name, value in ordered.items()}
    _report(adapters, auditors, clear, played, found, compared, single, together)
    if not keep:
        shutil.rmtree(work)
    once = not (found.twice or found.lost or found.doubled) and found.digests == len(
        set(made["digests"])
    )
    alike = compared["same_evidence"] == compared["files"] and ordered["same_verdict"] == len(
        {path.read_bytes() for path in chosen}
    )
    if not once or not alike:
        raise typer.Exit(1)


def _half_suspects(files: Sequence[Path], clear: int, count: int) -> list[Path]:
    """A sample of which one half may end at the screen and the other goes on, as far as they do."""
    chosen = random.Random(3)
    parts = files[:clear], files[clear:]
    return [one for part in parts for one in chosen.sample(part, min(count // 2, len(part)))]


class Steps:
    """Steps whose results lie in a folder, so that none is made twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        file = self._folder / f"{name}.json"
        if not file.exists():
            print(f"step {name}", flush=True)
            made = work()
            with whole_file(file) as partial:
                partial.write_text(json.dumps(made))
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def _files(source: Path, adapters: int, clear: float) -> dict[str, Any]:
    """The same files every time, and their digests; those that are none are in `bad`.

    The first ones, `clear` of them, are rescaled from what ends at the screen.
    """
    shutil.rmtree(source, ignore_errors=True)
    others = [path for path in sorted(ADAPTERS.glob("*.safetensors")) if path != CLEAR]
    count = round(adapters * clear)
    derived_ones = list(derived([CLEAR], source / "clear", count))
    derived_ones += derived(others, source / "others", adapters - count, seed=8)
    digests = [sha256(path.read_bytes()).hexdigest() for path in derived_ones]
    # By digest, so that suspects come all through the listing, as they do to a platform.
    named = source / "by-digest"
    named.mkdir()
    made = [
        path.rename(named / f"{digest[:16]}-{number}.safetensors")
        for number, (path, digest) in enumerate(zip(derived_ones, digests, strict=True))
    ]
    bad = source / "bad"
    bad.mkdir()
    (bad / "cut.safetensors").write_bytes(LEARNED.read_bytes()[:4000])
    (bad / "pickle.safetensors").write_bytes(b"PK\x03\x04" + bytes(2000))
    (bad / "empty.safetensors").touch()
    (bad / "noise.safetensors").write_bytes(random.Random(1).randbytes(3000))
    names = [str(path.relative_to(source)) for path in made]
    return {"files": names, "digests": digests, "clear": count}


def _report(
    adapters: int,
    auditors: int,
    clear: float,
    played: Played,
    found: Found,
    compared: Mapping[str, int],
    single: Mapping[str, float],
    together: Mapping[str, float],
) -> None:
    paper = plan(played, found, together, auditors)
    result: dict[str, object] = {
        "auditors": auditors,
        "clear_share": clear,
        "scan": {**asdict(played), "per_s": played.per_s},
        "found": asdict(found),
        "live": dict(compared),
        "one_by_one": dict(single),
        "together": dict(together),
        "plan": paper,
    }
    rows = [
        ("files", adapters),
        ("auditors", auditors),
        ("files a second", f"{played.per_s:.2f}"),
        ("of it ended at the screen", found.stages.get("screen", 0)),
        ("of it went to the response stage", found.stages.get("response", 0)),
        ("decisions on record when the driver was killed", played.kills),
        ("seconds from start to first decision", [round(one) for one in played.start_s]),
        ("different digests with a decision", found.digests),
        ("digests with two decisions", found.twice),
        ("files without a result", found.lost),
        ("files with two results", found.doubled),
        ("processes that outlived their driver", played.left_over),
        ("memory of all processes by share done, MiB", _by_share(played.rss_mib)),
        ("refused", found.poison),
        ("compared with a live server", compared["files"]),
        ("of it with the same evidence to the last bit", compared["same_evidence"]),
        ("asked with the whole scan on record: same verdict", compared["same_verdict"]),
        ("other verdict, for kin was blocked since", compared["other_verdict_by_lineage"]),
        ("asked in the order of a scan of the sample", compared["ordered_files"]),
        ("of it with the same verdict", compared["ordered_same_verdict"]),
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


def _by_share(rss_mib: Mapping[str, float]) -> str:
    return ", ".join(f"{share}: {value:.0f}" for share, value in rss_mib.items())


if __name__ == "__main__":
    typer.run(main)
