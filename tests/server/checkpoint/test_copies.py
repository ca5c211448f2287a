from __future__ import annotations

import os
import time

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.fetch import Intake
from loragate_server.progress import Leash
from tests.server.checkpoint.conftest import MakePost


async def test_a_kept_copy_outlives_the_limit_of_the_store_and_others_do_not(
    post: MakePost,
) -> None:
    home = post().house
    store_dir = home.root.parent / "small"
    content = home.files(0)
    intake = Intake(
        IntakeSection(roots=(home.root,), store_limit_bytes=len(content) + 9), store_dir
    )
    kept, other, third = (
        intake.fetch(AdapterReference(inline_bytes=home.files(seed)), Leash()) for seed in range(3)
    )
    # The limit holds one file only: each new one drove the last one out.
    assert [each.path.exists() for each in (kept, other, third)] == [False, False, True]
    assert intake.keep(kept.sha256, 60) is None

    assert intake.keep(third.sha256, 60) == third.path
    fourth = intake.fetch(AdapterReference(inline_bytes=home.files(3)), Leash())
    intake.fetch(AdapterReference(stored_sha256=third.sha256), Leash())
    fifth = intake.fetch(AdapterReference(inline_bytes=home.files(4)), Leash())
    assert [each.path.exists() for each in (third, fourth, fifth)] == [True, False, True]

    os.utime(third.path, (time.time() - 1, time.time() - 1))  # its time has passed
    intake.fetch(AdapterReference(inline_bytes=home.files(5)), Leash())
    assert not third.path.exists()


async def test_a_copy_that_is_gone_is_no_answer(post: MakePost) -> None:
    copies = post().checkpoint._copies
    with pytest.raises(NoDecisionError) as gone:
        await copies.paths(("0" * 64,), Leash(), keep=True)
    assert gone.value.reason is ErrorReason.ADAPTER_NOT_STORED
