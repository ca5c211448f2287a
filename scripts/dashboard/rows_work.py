"""Rows about the work: what is asked, what is answered, how fast, and what fails."""

from __future__ import annotations

from scripts.dashboard.panel import (
    ERROR_OBJECTIVE,
    LATENCY_OBJECTIVE_S,
    SLOW_SHARE_OBJECTIVE,
    Panel,
    quantiles,
)

NOW = (
    Panel(
        "Replicas that take requests",
        "Servers that are ready.",
        {"sum(loragate_ready{$S})": "ready"},
        kind="stat",
        good=1,
        alerts=("NoReplicaReady", "ReplicaNotReady", "TargetDown", "Absent"),
        width=4,
    ),
    Panel(
        "Firing alerts",
        "Alerts of loragate that fire now.",
        {'count(ALERTS{alertname=~"Loragate.*", alertstate="firing"}) or vector(0)': "firing"},
        kind="stat",
        objective=1,
        width=4,
    ),
    Panel(
        "Blocked in a day",
        "Decisions of BLOCK that were written down in the last 24 hours.",
        {'sum(increase(loragate_recorded_decisions_total{$S, verdict="BLOCK"}[24h]))': "blocked"},
        kind="stat",
        alerts=("AdapterBlocked", "BlockRatioJump"),
        width=4,
    ),
    Panel(
        "Reviews that wait",
        "Adapters that a person has to look at.",
        {"max(loragate_reviews_open{$S})": "open"},
        kind="stat",
        objective=1,
        alerts=("ReviewsWaiting", "AdapterForReview"),
        width=4,
    ),
    Panel(
        "Questions without a decision, 1 h",
        "Share for which the service is to blame. The objective is 0.1 % over 30 days.",
        {"max(job:loragate_errors:ratio_increase1h{$J})": "failed"},
        unit="percentunit",
        kind="stat",
        objective=ERROR_OBJECTIVE,
        alerts=("ErrorBudgetBurnFast", "ErrorBudgetBurn", "ErrorBudgetBurnSlow"),
        width=4,
    ),
    Panel(
        "Audits over 2 s, 1 h",
        "The objective is 5 % at most.",
        {"max(job:loragate_audits_over_2s:ratio_increase1h{$J})": "slow"},
        unit="percentunit",
        kind="stat",
        objective=SLOW_SHARE_OBJECTIVE,
        alerts=("LatencyObjectiveMissed",),
        width=4,
    ),
)

VERDICTS = (
    Panel(
        "Answers by verdict",
        "What callers were told, cached answers included.",
        {
            "sum by (verdict) (rate(loragate_decisions_total{$S}[$__rate_interval]))": (
                "{{verdict}}"
            )
        },
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Flagged adapters",
        "New decisions of BLOCK, REVIEW and INCONCLUSIVE, in pilot mode as well.",
        {
            "sum by (verdict) (increase(loragate_recorded_decisions_total"
            '{$S, verdict!="ALLOW"}[$__rate_interval]))': "{{verdict}}"
        },
        alerts=("AdapterBlocked", "AdapterForReview", "AuditsInconclusive"),
        stacked=True,
    ),
    Panel(
        "Share blocked, 1 h",
        "Share of the decisions that were written down.",
        {
            'sum(job_verdict:loragate_recorded_decisions:increase1h{$J, verdict="BLOCK"})'
            " / sum(job_verdict:loragate_recorded_decisions:increase1h{$J})": "blocked"
        },
        unit="percentunit",
        alerts=("BlockRatioJump",),
    ),
    Panel(
        "Answers by first reason",
        "Why callers were told what they were told.",
        {
            "sum by (reason) (rate(loragate_decisions_total{$S}[$__rate_interval])) > 0": (
                "{{reason}}"
            )
        },
        unit="reqps",
        stacked=True,
        width=12,
    ),
    Panel(
        "Pilot: what enforcement would have said",
        "Answers in pilot mode by the verdict that did not bind.",
        {
            "sum by (would_be_verdict) (rate(loragate_pilot_decisions_total{$S}"
            "[$__rate_interval]))": "{{would_be_verdict}}"
        },
        unit="reqps",
        alerts=("FailOpenConfigured",),
        stacked=True,
        width=12,
    ),
)

LATENCY = (
    Panel(
        "Time to a decision",
        "Decisions that are not cached, waiting included. The line is the objective for 95 %.",
        {
            f"histogram_quantile({share}, sum by (le) (rate(loragate_audit_seconds_bucket{{$S}}"
            "[$__rate_interval])))": name
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        },
        unit="s",
        objective=LATENCY_OBJECTIVE_S,
        alerts=("LatencyObjectiveMissed",),
    ),
    Panel(
        "95th percentile by stage",
        "Where the time of an audit goes.",
        quantiles("loragate_decision_duration_seconds", "stage", "{{stage}}"),
        unit="s",
        alerts=("LatencyObjectiveMissed", "KernelsCompiledAtRunTime"),
    ),
    Panel(
        "95th percentile by gRPC method",
        "From arrival to the end of a call, cached answers and refusals included.",
        quantiles("grpc_server_handling_seconds", "grpc_method", "{{grpc_method}}"),
        unit="s",
    ),
)

QUEUE = (
    Panel(
        "Queue, share of its limit",
        "At 1 further audits are refused with QUEUE_FULL.",
        {'replica:loragate_queue_depth:ratio{$J, instance=~"$instance"}': "{{instance}}"},
        unit="percentunit",
        objective=0.8,
        alerts=("QueueSaturated",),
    ),
    Panel(
        "Time in the queue",
        "95th percentile; what replicas are scaled by.",
        quantiles("loragate_queue_wait_seconds", "instance", "{{instance}}"),
        unit="s",
        objective=1.0,
        alerts=("QueueSaturated",),
    ),
    Panel(
        "Adapter bytes in flight",
        "Beyond gate.byte_budget requests are refused with BYTE_BUDGET_EXHAUSTED.",
        {"loragate_inflight_bytes{$S}": "{{instance}}"},
        unit="bytes",
        alerts=("QueueSaturated",),
    ),
    Panel(
        "Processor",
        "Cores in use.",
        {"rate(process_cpu_seconds_total{$S}[$__rate_interval])": "{{instance}}"},
        width=12,
    ),
    Panel(
        "Memory",
        "Resident memory.",
        {"process_resident_memory_bytes{$S}": "{{instance}}"},
        unit="bytes",
        alerts=("Restarting",),
        width=12,
    ),
)

ERRORS = (
    Panel(
        "Requests without a decision",
        "By reason; docs/operating.md says what each means.",
        {
            "sum by (reason) (rate(loragate_refusals_total{$S}[$__rate_interval])) > 0"
            ' or label_replace(vector(0), "reason", "none", "", "")': "{{reason}}"
        },
        unit="reqps",
        alerts=("AuditsFailing", "QueueSaturated"),
        stacked=True,
    ),
    Panel(
        "Error budget: share that failed",
        "Refusals for which the service is to blame. The line is the objective.",
        {
            f"max(job:loragate_errors:ratio_increase{window}{{$J}})": window
            for window in ("5m", "1h", "6h", "3d")
        },
        unit="percentunit",
        objective=ERROR_OBJECTIVE,
        alerts=("ErrorBudgetBurnFast", "ErrorBudgetBurn", "ErrorBudgetBurnSlow"),
    ),
    Panel(
        "Decisions that could not be written down",
        "1 while log, database or disk do not work.",
        {"max by (instance, reason) (loragate_record_failure{$S})": "{{instance}} {{reason}}"},
        objective=1,
        alerts=("DecisionLogFailing", "DatabaseFailing", "DiskFull"),
    ),
    Panel(
        "Checkpoints of the decision log",
        "For how long lines have been in no checkpoint that was taken there.",
        {
            "max by (instance, taker) (loragate_checkpoint_behind_seconds{$S})": (
                "{{instance}} {{taker}}"
            )
        },
        unit="s",
        objective=600,
        alerts=("CheckpointLate",),
        width=12,
    ),
    Panel(
        "Age of the oldest line that an audit device lacks",
        "By replica and device; 0 where it has all of the decision log.",
        {
            "max by (instance, device) (loragate_device_behind_seconds{$S})": (
                "{{instance}} {{device}}"
            )
        },
        unit="s",
        objective=600,
        alerts=("DeviceBehind",),
        width=12,
    ),
    Panel(
        "gRPC calls that did not end with OK",
        "By status code.",
        {
            "sum by (grpc_code) (rate(grpc_server_handled_total"
            '{$S, grpc_code!="OK"}[$__rate_interval]))': "{{grpc_code}}"
        },
        unit="reqps",
        stacked=True,
        width=12,
    ),
    Panel(
        "Decisions withheld, 1 h",
        "Decisions that nobody was told because the log was not written.",
        {"sum by (instance) (increase(loragate_log_write_failures_total{$S}[1h]))": "{{instance}}"},
        objective=1,
        alerts=("DecisionLogFailing", "DiskFull"),
        width=12,
    ),
    Panel(
        "Stored files that somebody changed, 1 h",
        "They are deleted; nobody but loragate may write in the store.",
        {
            "sum by (instance) (increase(loragate_store_corrupt_files_total{$S}[1h]))": (
                "{{instance}}"
            )
        },
        objective=1,
        alerts=("StoreCorrupt",),
        width=12,
    ),
    Panel(
        "Audits that hang",
        "Threads that were given up and still run, and those that were replaced in the last hour.",
        {
            "max by (instance) (loragate_worker_stuck{$S})": "{{instance}} hanging",
            "sum by (instance, cause) (increase(loragate_worker_replaced_total{$S}[1h]))": (
                "{{instance}} {{cause}}"
            ),
        },
        objective=1,
        alerts=("WorkerStuck",),
        width=12,
    ),
)

CACHE = (
    Panel(
        "Cache hits",
        "Share of the questions that were answered from the verdict cache.",
        {
            'sum(rate(loragate_cache_requests_total{$S, result="hit"}[$__rate_interval]))'
            " / sum(rate(loragate_cache_requests_total{$S}[$__rate_interval]))": "hits"
        },
        unit="percentunit",
    ),
    Panel(
        "Look-ups",
        "In the verdict cache, by result.",
        {
            "sum by (result) (rate(loragate_cache_requests_total{$S}[$__rate_interval]))": (
                "{{result}}"
            )
        },
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Shared audits",
        "Questions that joined an equal one in flight.",
        {"sum(rate(loragate_shared_flights_total{$S}[$__rate_interval]))": "shared"},
        unit="reqps",
    ),
)
