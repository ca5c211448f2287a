"""The query that KEDA scales by, in a real Prometheus's evaluation."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helm.conftest import scenario_on

pytestmark = [
    pytest.mark.needs("promtool"),
    pytest.mark.needs("helm"),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool"),
]

BUCKETS = ("0.1", "1", "5", "10", "+Inf")


def series(rates: dict[str, int], **labels: str) -> list[dict[str, str]]:
    """Buckets that grow by so much every 15 s, for ten minutes."""
    names = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return [
        {
            "series": f'loragate_queue_wait_seconds_bucket{{le="{le}",{names}}}',
            "values": f"0+{rates[le]}x40",
        }
        for le in BUCKETS
    ]


OURS = {"namespace": "images", "service": "loragate"}
FAST = dict.fromkeys(BUCKETS, 10)
SLOW = {"0.1": 1, "1": 2, "5": 4, "10": 10, "+Inf": 10}
IDLE = dict.fromkeys(BUCKETS, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], 0),
        (series(IDLE, pod="a", **OURS), 0),
        (series(FAST, pod="a", **OURS), 0.09),
        (series(SLOW, pod="a", **OURS) + series(SLOW, pod="b", **OURS), 9.17),
        (series(SLOW, pod="a", namespace="others", service="loragate"), 0),
    ],
    ids=["no series", "nothing waits", "short waits", "long waits", "another release"],
)
def test_waits_are_what_prometheus_says(
    given: list[dict[str, str]], expected: float, tmp_path: Path
) -> None:
    [trigger] = scenario_on("keda", "1.33").one("ScaledObject")["spec"]["triggers"]
    assert float(trigger["metadata"]["threshold"]) == 2
    case: dict[str, Any] = {
        "interval": "15s",
        "input_series": given,
        "promql_expr_test": [
            {
                "expr": f"round({trigger['metadata']['query']}, 0.01)",
                "eval_time": "5m",
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }
    (file := tmp_path / "test.yaml").write_text(json.dumps({"tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
