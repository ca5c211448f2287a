"""Hot reload: the policy in force follows its file and survives bad edits."""

import os
import threading
from pathlib import Path

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.policy import Policy
from loragate_server.policy.store import PolicyStore

GOOD = "version: 1\nmode: enforce\ndefaults: {block_score: 6}\n"
BETTER = GOOD.replace("6", "5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(GOOD)
    return file


def replace_file(path: Path, text: str) -> None:
    """As an editor that cares: a new file, renamed over the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_a_missing_file_is_an_error_at_the_first_load(tmp_path: Path) -> None:
    with pytest.raises(NoDecisionError, match="No such file") as caught:
        PolicyStore(tmp_path / "policy.yaml")
    assert caught.value.reason is ErrorReason.POLICY_INVALID


def test_a_broken_file_is_an_error_at_the_first_load(path: Path) -> None:
    path.write_text("mode: [")
    with pytest.raises(NoDecisionError) as caught:
        PolicyStore(path)
    assert caught.value.reason is ErrorReason.POLICY_INVALID


def test_a_reload_brings_the_new_policy_and_tells_listeners(path: Path) -> None:
    store = PolicyStore(path)
    heard: list[Policy] = []
    store.on_change(heard.append)
    assert store.reload()
    assert heard == []
    replace_file(path, BETTER)
    assert store.reload()
    assert store.current.defaults.block_score == 5
    assert heard == [store.current]
    assert store.last_reload_success


@pytest.mark.parametrize("bad", ["mode: [", "", GOOD + "x: 1\n", "version: 1\nmode: enforce\n"])
def test_a_bad_edit_keeps_the_last_good_policy_and_says_why(path: Path, bad: str) -> None:
    store = PolicyStore(path)
    before, loaded_at = store.current, store.last_reload_timestamp_s
    replace_file(path, bad)
    assert not store.reload()
    assert store.current is before
    assert store.last_error is not None
    assert "policy.yaml:" in store.last_error
    assert not store.last_reload_success
    assert store.last_reload_timestamp_s == loaded_at
    replace_file(path, BETTER)
    assert store.reload()
    assert store.last_error is None
    assert store.last_reload_success


def test_a_removed_file_keeps_the_policy_and_its_return_is_noticed(path: Path) -> None:
    store = PolicyStore(path)
    away = path.with_suffix(".away")
    path.rename(away)
    store.poll()
    assert not store.last_reload_success
    assert store.current.defaults.block_score == 6
    away.rename(path)
    store.poll()
    store.poll()
    assert store.last_reload_success
    assert store.last_error is None


def test_a_torn_write_that_is_valid_yaml_is_not_applied(path: Path) -> None:
    denied = f"deny_sha256:\n  - {{sha256: '{'a' * 64}', note: bad}}\n"
    replace_file(path, GOOD + denied)
    store = PolicyStore(path)
    with path.open("w") as file:
        file.write(BETTER)  # Valid, but the deny list is still to come.
        file.flush()
        store.poll()
        assert len(store.current.deny) == 1
        file.write(denied)
        file.flush()
        store.poll()
        assert store.current.defaults.block_score == 6  # Changed again: not settled yet.
    store.poll()
    assert store.current.defaults.block_score == 5
    assert len(store.current.deny) == 1


def test_a_refused_file_is_tried_once_and_not_at_every_poll(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = PolicyStore(path)
    replace_file(path, "mode: [")
    for _ in range(5):
        store.poll()
    assert len([r for r in caplog.records if "refused" in r.message]) == 1


def test_a_touched_file_is_no_change(path: Path) -> None:
    store = PolicyStore(path)
    heard: list[Policy] = []
    store.on_change(heard.append)
    os.utime(path, ns=(1, 1))
    store.poll()
    store.poll()
    assert heard == []
    assert store.last_reload_success


def test_the_watch_finds_a_change_behind_a_symbolic_link(tmp_path: Path) -> None:
    # This is how Kubernetes replaces a mounted ConfigMap.
    for name, text in (("one", GOOD), ("two", BETTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    data = tmp_path / "..data"
    data.symlink_to("one")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    store = PolicyStore(tmp_path / "policy.yaml", poll_interval_s=0.01)
    changed = threading.Event()
    store.on_change(lambda _: changed.set())
    store.start()
    try:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(data)
        assert changed.wait(20)
    finally:
        store.stop()
    assert store.current.defaults.block_score == 5


def test_a_failing_listener_stops_neither_the_policy_nor_other_listeners(path: Path) -> None:
    store = PolicyStore(path)
    heard: list[Policy] = []

    def fail(policy: Policy) -> None:
        raise RuntimeError("no")

    store.on_change(fail)
    store.on_change(heard.append)
    replace_file(path, BETTER)
    assert store.reload()
    assert len(heard) == 1


def test_stopping_ends_the_thread(path: Path) -> None:
    store = PolicyStore(path, poll_interval_s=0.01)
    store.start()
    store.start()
    assert len([t for t in threading.enumerate() if t.name == "policy-watch"]) == 1
    store.stop()
    assert not [t for t in threading.enumerate() if t.name == "policy-watch"]
