"""What the dashboard shows, row by row."""

from __future__ import annotations

from scripts.dashboard.panel import Panel
from scripts.dashboard.rows_catalogue import CATALOGUE
from scripts.dashboard.rows_state import CLIENTS, EVENTS, IN_FORCE, INTERCEPTION, REVIEWS
from scripts.dashboard.rows_work import CACHE, ERRORS, LATENCY, NOW, QUEUE, VERDICTS

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": NOW,
    "Verdicts and flagged adapters": VERDICTS,
    "Latency by stage": LATENCY,
    "Queue and saturation": QUEUE,
    "Errors and refusals": ERRORS,
    "Cache": CACHE,
    "Calibration, policy and versions by replica": IN_FORCE,
    "Interception": INTERCEPTION,
    "Reviews": REVIEWS,
    "Events": EVENTS,
    "Catalogues": CATALOGUE,
    "Image servers": CLIENTS,
}
