"""Bends a decision log in every way of `testkit.tamper`, and prints what finds each.

    python scripts/tamper_table.py

It writes a log with a tree in a folder of its own, hands out a checkpoint, and then looks at each
bent log with what `loragate-server log verify` looks with. Exit code 1: something was not found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loragate_server.record.chain import verify_log
from loragate_server.record.tree.note import parse_note
from loragate_server.record.tree.sealed import verify_tree
from loragate_server.record.tree.signer import read_note_key
from loragate_server.record.tree.trust import Trust
from testkit.checkpoints import make_key, open_tree_log
from testkit.tamper import LINES, TAMPERINGS


def table(folder: Path) -> list[tuple[str, bool, bool]]:
    """Way of bending, whether the chain alone shows it, and whether the checkpoint does."""
    keeper, log = open_tree_log(folder)
    for number in range(LINES):
        log.append_decision({"decision_id": f"d{number}"}, binding=True)
    if problems := keeper.make():
        raise SystemExit(f"no checkpoint: {problems}")
    log.close()
    trust = Trust([read_note_key(make_key(folder, "log-key")[1])])
    seen = trust.seen(parse_note((keeper.tree.folder / "checkpoint").read_text()), "checkpoint")
    path = folder / "decisions.jsonl"
    honest, rows = path.read_bytes(), []
    for one in TAMPERINGS:
        path.write_bytes(one.bend(honest))
        rows.append((one.name, not verify_log(path).intact, bool(verify_tree([path], [seen]))))
    return rows


def main() -> int:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder))
    print("| what was done | found by the chain | found by a checkpoint |\n|---|---|---|")
    for name, chain, checkpoint in rows:
        print(f"| {name} | {'yes' if chain else 'no'} | {'yes' if checkpoint else 'no'} |")
    return 0 if all(checkpoint for _, _, checkpoint in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
