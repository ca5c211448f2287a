"""What `loragate-server replay` prints: tables for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.known import KNOWN_CODE
from loragate_server.policy.lineage import COPY_CODE, PART_CODE, UNSEEN_CODE
from loragate_server.policy.policy import Policy
from loragate_server.policy.review import APPROVED_CODE, REJECTED_CODE
from loragate_server.replay import Tally, other_engine
from loragate_server.shares import CONFIDENCE, interval

_NARROWEST = 110
"""Columns: what is piped elsewhere must not be folded into unreadable strips."""

_SHORT = 12

_OVERRULING = {
    APPROVED_CODE: "approved by people",
    REJECTED_CODE: "rejected by people",
    KNOWN_CODE: "on record as blocked",
    COPY_CODE: "a blocked one again",
    PART_CODE: "holding a blocked one",
    UNSEEN_CODE: "sums not held against blocked ones",
}


def show(tally: Tally, policy: Policy, settings: Sequence[float]) -> None:
    """Prints the tables.

    Args:
        tally: what the replay found.
        policy: that decided again.
        settings: of block_p_value that were swept; none for no such table.
    """
    console = Console()
    console = Console(width=max(console.width, _NARROWEST), highlight=False, soft_wrap=True)
    under = f"{escape(policy.file)} (revision {policy.digest[:_SHORT]})"
    if not tally.decisions:
        console.print(f"No decision to replay under {under}.")
        return
    console.print(
        f"Decided again under {under}\n"
        f"Decisions: {tally.decisions:,}, {tally.oldest:%Y-%m-%d} to {tally.newest:%Y-%m-%d}; "
        f"different adapters, or sets of them: {tally.adapter_sets:,}\n"
    )
    console.print(_cross(tally))
    old, new = tally.old(VerdictKind.BLOCK), tally.new(VerdictKind.BLOCK)
    console.print(f"\nWould be blocked: {_share(new, tally.decisions)}")
    console.print(f"Recorded:         {_share(old, tally.decisions)}")
    _say_what_overruled(console, tally)
    if settings:
        console.print(_sweep(tally, settings))
        _say_what_else_blocks(console, policy)
    _show_origins(console, tally)
    _show_changes(console, tally)


def _cross(tally: Tally) -> Table:
    kinds = list(VerdictKind)
    table = Table("recorded \\ replayed", box=None)
    for kind in [*kinds, "all"]:
        table.add_column(str(kind), justify="right", no_wrap=True)
    for old in kinds:
        counts = [tally.pairs[old, new] for new in kinds]
        table.add_row(str(old), *(_cell(n, tally) for n in (*counts, tally.old(old))))
    totals = [tally.new(kind) for kind in kinds]
    table.add_row("all", *(_cell(n, tally) for n in (*totals, tally.decisions)))
    return table


def _cell(count: int, tally: Tally) -> str:
    return f"{count:,} ({100 * count / tally.decisions:.1f} %)" if count else "-"


def _share(count: int, of: int) -> str:
    low, high = interval(count, of)
    return (
        f"{count:,} of {of:,}, {100 * count / of:.2f} % "
        f"({100 * CONFIDENCE:.0f} % interval {100 * low:.2f} to {100 * high:.2f} %)"
    )


def _say_what_overruled(console: Console, tally: Tally) -> None:
    found = [
        f"{words} {tally.overruled[code]:,}"
        for code, words in _OVERRULING.items()
        if tally.overruled[code]
    ]
    if found:
        console.print(
            f"\nNot by a policy alone: {', '.join(found)}. "
            "This stands under the other policy as it did under the recorded one."
        )


def _sweep(tally: Tally, settings: Sequence[float]) -> Table:
    title = "\nIf defaults.block_p_value were"
    table = Table(title=title, title_justify="left", title_style="", box=None)
    table.add_column("block_p_value", justify="right")
    table.add_column("would be blocked", no_wrap=True)
    for setting in settings:
        table.add_row(f"{setting:g}", _share(tally.swept[setting], tally.decisions))
    return table


def _say_what_else_blocks(console: Console, policy: Policy) -> None:
    if policy.defaults.block_score is not None:
        console.print(
            f"block_score {policy.defaults.block_score:g} of the policy blocks as well; set it to "
            "null to let the p-value decide alone."
        )


def _show_origins(console: Console, tally: Tally) -> None:
    if tally.unmeasured:
        console.print(
            f"\nWithout measurement (deny-listed, or not understood): {tally.unmeasured:,}; "
            "no policy can allow these."
        )
    others = other_engine(tally.origins.items(), ENGINE_VERSION)
    if others:
        console.print(
            f"\nMeasured by another engine version than the present {ENGINE_VERSION}: {others:,}"
        )
    if len(tally.origins) < 2:
        return
    title = f"\nMeasured with {len(tally.origins)} combinations of library and engine, newest first"
    table = Table(title=title, title_justify="left", title_style="", box=None)
    table.add_column("library")
    table.add_column("engine")
    table.add_column("decisions", justify="right")
    table.add_column("would be blocked", no_wrap=True)
    for origin, count in tally.origins.items():
        name, version = escape(origin.library_digest[:_SHORT]), escape(origin.engine_version)
        table.add_row(name, version, f"{count:,}", _share(tally.blocked[origin], count))
    console.print(table)


def _show_changes(console: Console, tally: Tally) -> None:
    if not tally.changed:
        console.print("\nNo decision changes.")
        return
    more = tally.changed - len(tally.changes)
    tail = f"; the newest {len(tally.changes)} are listed, --all lists the rest" if more else ""
    title = f"\nDecisions that change: {tally.changed:,}{tail}"
    table = Table(title=title, title_justify="left", title_style="", box=None)
    for name in ("decision", "adapter", "top concept", "recorded", "replayed"):
        table.add_column(name, no_wrap=name != "top concept", overflow="fold")
    for change in tally.changes:
        first = change.adapters[0][:_SHORT] if change.adapters else "-"
        others = len(change.adapters) - 1
        adapter = f"{first} +{others}" if others > 0 else first
        table.add_row(
            change.decision_id, adapter, escape(change.concept) or "-", change.old, change.new
        )
    console.print(table)


def as_object(tally: Tally, policy: Policy, settings: Sequence[float]) -> str:
    """The same as one JSON object; shares are null where there are no decisions."""
    kinds = list(VerdictKind)
    answer: dict[str, Any] = {
        "policy": {"file": policy.file, "sha256": policy.digest},
        "decisions": tally.decisions,
        "adapter_sets": tally.adapter_sets,
        "oldest": tally.oldest.isoformat() if tally.oldest else None,
        "newest": tally.newest.isoformat() if tally.newest else None,
        "verdicts": [
            {"recorded": old, "replayed": new, **_counted(tally.pairs[old, new], tally.decisions)}
            for old in kinds
            for new in kinds
            if tally.pairs[old, new]
        ],
        "would_block": _estimated(tally.new(VerdictKind.BLOCK), tally.decisions),
        "recorded_block": _estimated(tally.old(VerdictKind.BLOCK), tally.decisions),
        "overruled": {code: tally.overruled[code] for code in _OVERRULING},
        "unmeasured": tally.unmeasured,
        "other_engine": other_engine(tally.origins.items(), ENGINE_VERSION),
        "origins": [
            {
                "library_sha256": origin.library_digest,
                "engine_version": origin.engine_version,
                "decisions": count,
                "would_block": _estimated(tally.blocked[origin], count),
            }
            for origin, count in tally.origins.items()
        ],
        "changed": tally.changed,
        "changes": [
            {
                "decision_id": change.decision_id,
                "adapter_sha256s": change.adapters,
                "top_concept": change.concept or None,
                "recorded": change.old,
                "replayed": change.new,
            }
            for change in tally.changes
        ],
        "undecodable": tally.undecodable,
    }
    if settings:
        answer["sweep"] = [
            {"block_p_value": setting, **_estimated(tally.swept[setting], tally.decisions)}
            for setting in settings
        ]
    return json.dumps(answer, indent=2)


def _counted(count: int, of: int) -> dict[str, Any]:
    return {"count": count, "share": count / of if of else None}


def _estimated(count: int, of: int) -> dict[str, Any]:
    low, high = interval(count, of) if of else (None, None)
    return {**_counted(count, of), "low": low, "high": high}
