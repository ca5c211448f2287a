"""What a lower rank costs, and how long everything takes, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.audit.data import CORE
from benchmarks.audit.metrics import Share


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def rank_table(rows: Sequence[Mapping[str, Any]] | None) -> str:
    if rows is None:
        return "Not measured."
    head = ("rank", "MB", "AUROC, adapters", "TPR at 1 % FPR, adapters", "lowest learned", "ms")
    made = [
        (
            row["rank"],
            f"{row['megabytes']:.0f}",
            f"{row['adapter_auroc']:.5f}",
            Share(row["found"], row["of"]),
            f"{row['lowest_learned']:.2f}",
            f"{row['screen_ms']:.1f}",
        )
        for row in rows
    ]
    note = (
        "The screen alone on the development split, on which the rank was chosen; all layers. "
        "Measured with 79 forbidden concepts, 48 neutral ones and gradients of four rows, before "
        " layers were weighed and the products made faster: compare rows of this table with "
        "each other alone."
    )
    return f"{note}\n\n{table(head, made)}"


def time_text(timing: Mapping[str, Any] | None, alternatives: Sequence[Mapping[str, Any]]) -> str:
    if timing is None:
        return "Not measured."
    rows = [
        ("screen, 64 concepts", f"{timing['screen_64_ms']:.1f} ms"),
        ("both stages, three suspects", f"{timing['both_stages_ms']:.0f} ms"),
    ]
    if "generate_one_concept_ms" in timing:
        drawn_ms = len(CORE) * timing["generate_one_concept_ms"]
        ratio = drawn_ms / timing["both_stages_ms"]
        rows.append(
            (
                "generate 20 pictures and classify, same run",
                f"{drawn_ms:.0f} ms ({ratio:.0f} times)",
            )
        )
    rows += [
        (one["name"], f"{1000 * one['seconds_per_adapter']:.0f} ms")
        for one in alternatives
        if one.get("seconds_per_adapter")
    ]
    found = table(("method", "one adapter, 64 concepts"), rows)
    return f"{found}\n\n![Time](../../docs/pictures/audit-time.png)"
