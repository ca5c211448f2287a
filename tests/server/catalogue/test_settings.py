"""What a scan tells the processes that measure for it."""

from __future__ import annotations

import json
from pathlib import Path

from loragate_server.app.cataloguing import for_auditors
from loragate_server.config.gradients import GradientsSection
from loragate_server.config.schema import Config


def test_auditors_make_the_gradients_that_a_server_of_the_configuration_makes(
    tmp_path: Path,
) -> None:
    chosen = GradientsSection(kind="lean", rows_at_once=2, memory_bytes=1 << 40)
    told = for_auditors(Config(state_dir=tmp_path, gradients=chosen, threads=3))
    heard = Config.model_validate(json.loads(told))
    assert heard.gradients == chosen
    assert heard.threads == 3


def test_auditors_are_told_no_password(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path, database_url="postgresql://gate:secret@database/gate")
    assert "secret" not in for_auditors(config)
