"""The walls of the architecture: which module may import which. `test_walls` holds code to them."""

from __future__ import annotations

NOT_FOR = {
    "loragate_kernels": (
        "loragate",
        "loragate_server",
        "emoji_tiny",
        "benchmarks",
        "testkit",
        "grpc",
    ),
    "loragate": ("loragate_server", "loragate_kernels", "emoji_tiny", "benchmarks", "testkit"),
    "loragate_server": ("emoji_tiny", "benchmarks", "testkit"),
}
"""Package to what none of its modules may import, not even inside a function."""

BASICS = ("errors", "files", "progress", "threads", "time_limit")
NOUNS = ("adapter.reference", "audit.evidence", "policy.decision", "record.verdict")
WORDS = ("policy.reasons", "policy.sentences")
"""What a decision says in words, without deciding anything."""

MAY_IMPORT = {
    "errors": (),
    "files": (),
    "strict_json": (),
    "severity": (),
    "places": (),
    "threads": (),
    "time_limit": (),
    "testing": (),
    "progress": ("errors",),
    "adapter": (),
    "config": ("severity",),
    "tracing": ("errors", "config.tracing"),
    "logs": ("tracing.tracer",),
    "models": (*BASICS, "adapter"),
    "intake": (*BASICS, "strict_json", "adapter", "config.intake", "models"),
    "concepts": (*BASICS, "severity", "adapter", "models"),
    "audit": (*BASICS, "adapter", "intake", "models", "concepts"),
    "policy": (*BASICS, "severity", "audit.evidence"),
    "record": (
        *BASICS,
        "config.checkpoints",
        "config.retention",
        "config.signing",
        "audit.evidence",
        "policy.decision",
        "policy.known",
        "policy.lineage",
        "policy.review",
    ),
    "wording": (),
    "report": (*BASICS, "audit.evidence", "policy", "record", "wording"),
    "replay": (*BASICS, "audit.evidence", "policy", "record"),
    "gate": (
        *BASICS,
        "adapter",
        "config.gate",
        "intake",
        "models",
        "concepts",
        "audit",
        "policy",
        "record",
        "tracing.tracer",
    ),
    "intercept": ("strict_json", "adapter.reference"),
    "checkpoint": (*BASICS, "config.intercept", "gate", "intercept", "policy.reasons", *NOUNS),
    "access": ("config.console", "wording"),
    "console": (
        *BASICS,
        "severity",
        "access",
        "config.console",
        "concepts.concept",
        "concepts.library",
        "concepts.pictures",
        "policy",
        "record",
        "replay",
        "report",
        "wording",
    ),
    "web": (
        "config.intercept",
        "config.listen",
        "places",
        "progress",
        "threads",
        "tracing.tracer",
        "checkpoint.outcome",
        "intercept.request",
    ),
    "relay": (
        "places",
        "progress",
        "config.intercept",
        "config.listen",
        "checkpoint.outcome",
        "intercept.extraction",
        "intercept.request",
    ),
    "rpc": (
        *BASICS,
        "severity",
        "config.listen",
        "logs",
        "places",
        "checkpoint",
        "gate",
        "concepts.concept",
        "concepts.library",
        "intercept",
        "models.base",
        *WORDS,
        "tracing.tracer",
        *NOUNS,
    ),
    "metrics": (
        "errors",
        "threads",
        "checkpoint.result",
        "gate.observer",
        "policy.reasons",
        "policy.store",
        "relay.observer",
        "rpc.envoy",
        "rpc.observer",
        "tracing.tracer",
        *NOUNS,
    ),
    "app": None,
    "cli": (
        *BASICS,
        "severity",
        "adapter",
        "app",
        "audit",
        "concepts",
        "config",
        "intake",
        "logs",
        "models",
        "policy",
        "record",
        "replay",
        "report",
        "wording",
    ),
    "__main__": ("cli.command",),
}
"""Room of the server to what it may import of the server; None for every room above it.

The order is that of the rooms: none may import one that stands below it here.
"""

PUBLIC_ONLY = "loragate.integrations"
"""Guards of image servers are written against what the SDK offers everybody, and nothing else."""

HEAVY = ("torch", "triton", "diffusers", "transformers", "peft", "numpy", "scipy")
LIGHT = (
    "loragate",
    "loragate_server.access",
    "loragate_server.adapter.reference",
    "loragate_server.audit.evidence",
    "loragate_server.cli.command",
    "loragate_server.config",
    "loragate_server.console",
    "loragate_server.intercept",
    "loragate_server.logs.lines",
    "loragate_server.metrics.metrics",
    "loragate_server.metrics.state",
    "loragate_server.policy",
    "loragate_server.record",
    "loragate_server.replay",
    "loragate_server.report",
    "loragate_server.testing",
    "loragate_server.tracing.tracer",
    "loragate_server.web",
    "loragate_server.wording",
)
"""Packages and modules whose import must load none of HEAVY, directly or through others."""
