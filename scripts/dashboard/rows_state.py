"""Rows about what is in force, what stands around the service, and who looks after it."""

from __future__ import annotations

from scripts.dashboard.panel import LATENCY_OBJECTIVE_S, Panel, quantiles

IN_FORCE = (
    Panel(
        "Policy",
        "Revision by replica; all should be equal.",
        {"loragate_policy_info{$S}": ""},
        kind="table",
        alerts=("PolicyDiffers", "PolicyRefused", "PolicyStale"),
    ),
    Panel(
        "Concept library",
        "Digest by replica; all should be equal.",
        {"loragate_library_info{$S}": ""},
        kind="table",
        alerts=("LibraryDiffers",),
    ),
    Panel(
        "Calibration",
        "State by replica and base model; in_force is good.",
        {"loragate_calibration_state{$S} == 1": ""},
        kind="table",
        alerts=("CalibrationMissing", "CalibrationStale", "LibraryDiffers"),
    ),
    Panel(
        "Versions",
        "Of server and engine, by replica.",
        {"loragate_build_info{$S}": ""},
        kind="table",
        alerts=("EngineDiffers",),
    ),
    Panel(
        "Base models",
        "By replica, with device and dtype.",
        {"loragate_base_model_info{$S}": ""},
        kind="table",
        alerts=("EngineDiffers", "KernelFallback"),
    ),
    Panel(
        "Kernels",
        "Backend by replica.",
        {"loragate_kernel_info{$S}": ""},
        kind="table",
        alerts=("KernelFallback", "KernelsCompiledAtRunTime"),
    ),
    Panel(
        "Policy file accepted",
        "0 while the file in place is refused.",
        {"loragate_policy_last_reload_success{$S}": "{{instance}}"},
        alerts=("PolicyRefused", "PolicyStale"),
    ),
    Panel(
        "Certificate, time left",
        "Of the gRPC port; nothing without TLS.",
        {
            "(loragate_certificate_expiry_timestamp_seconds{$S} > 0) - time()": "{{instance}}",
        },
        unit="s",
        alerts=("CertificateExpires", "CertificateExpiresSoon"),
    ),
    Panel(
        "Kernels compiled at run time, 1 h",
        "Nothing where the reference kernels run.",
        {"increase(loragate_kernel_compilations_total{$S}[1h])": "{{instance}}"},
        objective=1,
        alerts=("KernelsCompiledAtRunTime",),
    ),
)

INTERCEPTION = (
    Panel(
        "Requests to image servers",
        "By how the check ended.",
        {
            "sum by (outcome) (rate(loragate_intercepted_requests_total{$S}"
            "[$__rate_interval]))": "{{outcome}}"
        },
        unit="reqps",
        alerts=("InterceptionSeesNoAdapters",),
        stacked=True,
    ),
    Panel(
        "Requests by extractor",
        "none: proxies asked for an extractor that does not exist.",
        {
            "sum by (extractor) (rate(loragate_intercepted_requests_total{$S}"
            "[$__rate_interval]))": "{{extractor}}"
        },
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Requests by unknown routes, 1 h",
        "They change something by a route that the extractor does not know.",
        {
            "sum by (extractor, outcome) (increase(loragate_intercepted_requests_total"
            '{$S, outcome=~"unknown_.*"}[1h]))': "{{extractor}} {{outcome}}"
        },
        objective=10,
        alerts=("UnknownRoutes",),
    ),
    Panel(
        "Time of a check",
        "95th percentile by extractor.",
        quantiles("loragate_intercept_seconds", "extractor", "{{extractor}}"),
        unit="s",
        objective=LATENCY_OBJECTIVE_S,
    ),
    Panel(
        "WebSockets in the relay",
        "Open ones, by the extractor that reads their messages.",
        {"sum by (extractor) (loragate_relay_connections{$S})": "{{extractor}}"},
        stacked=True,
    ),
    Panel(
        "How relayed WebSockets ended, 1 h",
        "refused: a message must not pass. no_decision, failed: nobody could say.",
        {
            "sum by (extractor, cause) (increase(loragate_relay_ended_total{$S}[1h]))": (
                "{{extractor}} {{cause}}"
            )
        },
        alerts=("RelayFailing",),
    ),
)

REVIEWS = (
    Panel(
        "Reviews that wait",
        "Adapters that a person has to look at.",
        {"max by (job) (loragate_reviews_open{$S})": "{{job}}"},
        alerts=("ReviewsWaiting",),
        width=12,
    ),
    Panel(
        "What people decided, 1 h",
        "Approvals, rejections and cases opened again.",
        {"sum by (action) (increase(loragate_reviews_total{$S}[1h]))": "{{action}}"},
        stacked=True,
        width=12,
    ),
)

EVENTS = (
    Panel(
        "Age of the oldest event that waits",
        "By receiver; 0 where all is delivered.",
        {"max by (receiver) (loragate_events_oldest_seconds{$S})": "{{receiver}}"},
        unit="s",
        objective=3600,
        alerts=("EventsNotDelivered",),
    ),
    Panel(
        "Events that were given up",
        "They lie in the database until they are sent again or dropped.",
        {"max by (receiver) (loragate_events_dead_letters{$S})": "{{receiver}}"},
        objective=1,
        alerts=("EventsNotDelivered",),
    ),
    Panel(
        "Attempts at which events were not taken, 1 h",
        "By receiver and kind.",
        {
            "sum by (receiver, kind) (increase(loragate_events_failed_total{$S}[1h]))": (
                "{{receiver}} {{kind}}"
            )
        },
        alerts=("EventsNotDelivered",),
        stacked=True,
    ),
)

CLIENTS = (
    Panel(
        "Audits that image servers asked for",
        "By what they were told; from their own /metrics with loragate.prometheus.",
        {
            "sum by (job, result) (rate(loragate_client_audits_total"
            '{namespace=~"$namespace"}[$__rate_interval]))': "{{job}} {{result}}"
        },
        unit="reqps",
        alerts=("NoAuditsWhileLoadsHappen",),
        stacked=True,
    ),
    Panel(
        "Adapters let in without a decision, 1 h",
        "Anything above 0 means that nobody looked.",
        {
            "sum by (job) (increase(loragate_fail_open_total"
            '{namespace=~"$namespace"}[1h]))': "{{job}}"
        },
        objective=1,
        alerts=("FailOpenInUse",),
    ),
    Panel(
        "Settings that let adapters pass",
        "1 while one is in force.",
        {"max by (job, setting) (loragate_fail_open_setting{$S})": "{{job}} {{setting}}"},
        objective=1,
        alerts=("FailOpenConfigured",),
    ),
)
