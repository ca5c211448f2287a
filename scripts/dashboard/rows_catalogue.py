"""Row about scans of whole catalogues, which are jobs of their own beside the servers."""

from __future__ import annotations

from scripts.dashboard.panel import Panel

HERE = 'namespace=~"$namespace"'

CATALOGUE = (
    Panel(
        "Files of the catalogue",
        "What the source lists, and what has no result yet.",
        {
            f"max by (job, instance) (loragate_catalogue_listed_files{{{HERE}}})": "{{job}} listed",
            f"max by (job, instance) (loragate_catalogue_remaining_files{{{HERE}}})": (
                "{{job}} left"
            ),
        },
        alerts=("CatalogueStalled",),
    ),
    Panel(
        "Files done, by outcome",
        "Decided, the same bytes as another place, or refused with a reason in the results.",
        {
            f"sum by (job, outcome) (rate(loragate_catalogue_files_total{{{HERE}}}"
            "[$__rate_interval]))": "{{job}} {{outcome}}"
        },
        unit="ops",
        stacked=True,
        alerts=("CatalogueRefusesMany",),
    ),
    Panel(
        "Since a file was done",
        "Of a scan that has files left; a scan that hangs shows here.",
        {
            f"max by (job, instance) (loragate_catalogue_idle_seconds{{{HERE}}}) "
            f"and max by (job, instance) (loragate_catalogue_remaining_files{{{HERE}}}) > 0": (
                "{{job}}"
            )
        },
        unit="s",
        objective=1800,
        alerts=("CatalogueStalled",),
    ),
    Panel(
        "Response stage",
        "Files that went to it, by whether it had to run or was known from an earlier scan.",
        {
            f"sum by (job, source) (rate(loragate_catalogue_responses_total{{{HERE}}}"
            "[$__rate_interval]))": "{{job}} {{source}}"
        },
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Looks at the source",
        "Listings, of a source that is followed one after the other.",
        {
            f"sum by (job, result) (increase(loragate_catalogue_looks_total{{{HERE}}}[1h]))": (
                "{{job}} {{result}}"
            )
        },
        alerts=("CatalogueCannotLook",),
    ),
)
