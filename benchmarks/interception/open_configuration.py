"""The shipped configuration of a proxy, without the question to loragate."""

from __future__ import annotations

import re
from pathlib import Path

import yaml


def open_envoy(work: Path) -> None:
    """Takes the filter out."""
    file = work / "envoy.yaml"
    tree = yaml.safe_load(file.read_text())
    manager = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    filters = manager["typed_config"]["http_filters"]
    kept = [one for one in filters if one["name"] != "envoy.filters.http.ext_authz"]
    _changed(len(kept) == len(filters) - 1, file)
    manager["typed_config"]["http_filters"] = kept
    file.write_text(yaml.safe_dump(tree))


def open_nginx(work: Path) -> None:
    """Passes requests on where the script was."""
    file = work / "nginx.conf"
    text = file.read_text()
    passed = re.search(r"location @image_server \{(.*?)\}", text, re.DOTALL)
    _changed(passed is not None and "js_content loragate.guard;" in text, file)
    assert passed is not None
    file.write_text(text.replace("js_content loragate.guard;", passed[1]))


def open_haproxy(work: Path) -> None:
    """Takes out the action, and the line that refuses what it did not allow."""
    file = work / "haproxy.cfg"
    lines = file.read_text().splitlines()
    kept = [line for line in lines if "lua.loragate" not in line and "txn.loragate" not in line]
    _changed(len(kept) == len(lines) - 2, file)
    file.write_text("\n".join(kept) + "\n")


OPEN = {"envoy": open_envoy, "nginx": open_nginx, "haproxy": open_haproxy}


def _changed(done: bool, file: Path) -> None:
    if not done:
        raise RuntimeError(f"{file.name} has another shape; the benchmark has to follow it")
