"""An auditor that hangs ends itself, whatever it hangs in; one that works on does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testkit.waiting import at_most

PROGRAM = """
import time
from loragate_server.catalogue.hanging import guarded

with guarded({limit_s}) as leash:
    {work}
time.sleep({limit_s} * 1.1)
print("went on")
"""


def run(work: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(work=work, limit_s=limit_s)],
        capture_output=True,
        text=True,
        timeout=at_most(30),
        check=False,
    )


@pytest.mark.parametrize(
    "work",
    ["time.sleep(600)", "__import__('re').match('(a+)+$', 'a' * 60 + 'b')"],
    ids=["waiting", "without letting anybody else run"],
)
def test_who_gives_no_sign_of_life_is_ended_and_it_is_said_where_it_hung(work: str) -> None:
    ended = run(work, 0.5)
    assert ended.returncode == 1
    assert "went on" not in ended.stdout
    assert "Timeout" in ended.stderr
    assert "most recent call first" in ended.stderr


@pytest.mark.parametrize("sign", ["check()", "report('screen', 1.0)"])
def test_who_gives_signs_may_take_as_long_as_he_likes_and_is_free_afterwards(sign: str) -> None:
    ended = run(f"[(leash.{sign}, time.sleep(0.1)) for _ in range(40)]", 3.0)
    assert (ended.returncode, ended.stdout) == (0, "went on\n"), ended.stderr
