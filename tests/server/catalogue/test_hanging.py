"""An auditor that hangs ends itself, whatever it hangs in; one that works on does not."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from testkit.waiting import at_most

PROGRAM = """
import time
from loragate_server.catalogue.hanging import Guard

leash = Guard(1.0)
with leash.on():
    {work}
time.sleep(1.5)
print("went on")
"""


def run(work: str) -> subprocess.CompletedProcess[str]:
    code = PROGRAM.format(work=work)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=at_most(60),
        check=False,
    )


@pytest.mark.parametrize(
    "work",
    ["time.sleep(600)", "__import__('re').match('(a+)+$', 'a' * 60 + 'b')"],
    ids=["waiting", "without letting anybody else run"],
)
def test_who_gives_no_sign_of_life_is_ended_and_it_is_said_where_it_hung(work: str) -> None:
    began = time.monotonic()
    ended = run(work)
    assert ended.returncode == 1
    assert "went on" not in ended.stdout
    assert "Timeout" in ended.stderr
    assert "most recent call first" in ended.stderr
    assert time.monotonic() - began < at_most(30)


def test_who_polls_may_take_as_long_as_he_likes_and_is_free_afterwards() -> None:
    ended = run("[(leash.check(), time.sleep(0.2)) for _ in range(12)]")
    assert (ended.returncode, ended.stdout) == (0, "went on\n"), ended.stderr
