"""checkov finds nothing in any rendering but what is listed with a reason."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.conftest import ROOT, SCENARIOS, scenario_on

CHECKOV = ROOT / "build/tools/checkov/bin/checkov"
REASONS = yaml.safe_load(Path(__file__).with_name("checkov.yaml").read_text())

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs("checkov"),
    pytest.mark.skipif(not CHECKOV.exists(), reason="install_test_tools.sh installs checkov"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What checkov says about all scenarios, in one run."""
    folder = tmp_path_factory.mktemp("renderings")
    for scenario in SCENARIOS:
        (folder / f"{scenario}.yaml").write_text(scenario_on(scenario, "1.33").text)
    command = [
        str(CHECKOV),
        "--directory",
        str(folder),
        "--framework",
        "kubernetes",
        "--output",
        "json",
    ]
    done = subprocess.run(
        [*command, "--skip-download", "--quiet", "--compact"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def permits(entry: dict[str, Any], finding: dict[str, Any]) -> bool:
    return (
        finding["check_id"] in entry["checks"]
        and re.fullmatch(entry["resources"], finding["resource"]) is not None
        and Path(finding["file_path"]).stem in entry.get("scenarios", SCENARIOS)
    )


def test_every_finding_has_a_reason(report: dict[str, Any]) -> None:
    summary = report["summary"]
    assert summary["parsing_errors"] == 0
    assert summary["passed"] > 4000
    unexplained = [
        f"{Path(found['file_path']).stem}: {found['resource']}: {found['check_name']}"
        for found in report["results"]["failed_checks"]
        if not any(permits(entry, found) for entry in REASONS)
    ]
    assert unexplained == []


def test_every_reason_is_needed(report: dict[str, Any]) -> None:
    for entry in REASONS:
        assert len(entry["reason"]) > 30
        for check in entry["checks"]:
            assert any(
                found["check_id"] == check and permits(entry, found)
                for found in report["results"]["failed_checks"]
            ), (check, entry["resources"])
