"""The commands of docs/rest.md do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from loragate_server.rest.rules import rules
from loragate_server.testing import ServerProcess
from testkit.waiting import at_most
from tests.server.rest.conftest import ADAPTERS

DOCUMENT = Path(__file__).parents[3] / "docs" / "rest.md"
TEXT = DOCUMENT.read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
FILE = "my-style.safetensors"


def test_the_table_names_every_address() -> None:
    told = re.findall(r"^\| `(\w+) (/\S+)` \| `(\w+\.\w+)` \|$", TEXT, re.MULTILINE)
    there = [
        (rule.verb, rule.path, f"{rule.method.containing_service.name}.{rule.method.name}")
        for rule in rules()
    ]
    assert told == there


def test_every_command_answers_as_it_stands(
    server: ServerProcess, root: Path, tmp_path: Path
) -> None:
    for folder in (root, tmp_path):
        shutil.copy(ADAPTERS / "harmless-watermelon.safetensors", folder / FILE)
    outputs = []
    for block in BLOCKS:
        command = block.replace("127.0.0.1:9464", server.http)
        command = command.replace("/models/loras", str(root))
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=at_most(60),
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
        outputs.append(done.stdout)
    asked, sent, watched, listed = outputs
    for answer in (asked, sent):
        assert json.loads(answer)["verdict"]["verdict"] == "VERDICT_KIND_ALLOW"
    assert "verdict" in json.loads(watched.splitlines()[-1])
    assert '"library_digest"' in listed
