"""docs/console-access.md shows settings that work, and names every code that people can meet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loragate_server.access import make_access
from loragate_server.access.refusals import Refusal
from loragate_server.config.schema import Config

DOCUMENT = (Path(__file__).parents[3] / "docs" / "console-access.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_make_a_console(example: str, secrets_folder: Path) -> None:
    (secrets_folder / "session-secret").write_bytes((secrets_folder / "session").read_bytes())
    for name in ("oidc-client-secret", "console-proxy-secret"):
        (secrets_folder / name).write_text("a secret")
    text = example.replace("/etc/loragate", str(secrets_folder))
    config = Config.model_validate(YAML(typ="safe").load(text))
    assert config.console.enabled
    make_access(config.console)


def test_there_is_an_example_of_either_way() -> None:
    assert [re.findall(r"auth: (\w+)", example) for example in EXAMPLES] == [["oidc"], ["proxy"]]


def test_every_code_has_its_cause_and_remedy() -> None:
    table = DOCUMENT.partition("## When it does not work")[2]
    rows = re.findall(r"^\| (`.+`) \| (.+) \| (.+) \|$", table, re.MULTILINE)
    named = [code for codes, _, _ in rows for code in re.findall(r"`(\w+)`", codes)]
    assert sorted(named) == sorted(Refusal)
