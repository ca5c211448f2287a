"""The console over a real database, with real reviews, and people that a proxy names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from loragate_server.access import make_access
from loragate_server.audit.evidence import Evidence
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.console import ConsoleSection, ProxySection, RolesSection
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.console.app import console_application
from loragate_server.console.sources import Sources
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.verdict import Caller, Verdict
from tests.server.console.pages.material import ADDRESS, POLICY, Browser, Opens, evidence, suspected
from tests.server.console.pages.shelf import Shelf

LONGEST = timedelta(days=90)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    opened = Recorder(f"sqlite:///{tmp_path}/loragate.sqlite3", tmp_path / "decisions.jsonl")
    yield opened
    opened.close()


@pytest.fixture
def record(recorder: Recorder) -> Callable[..., Verdict]:
    """Decides and records evidence; a REVIEW without any."""

    def one(
        found: Evidence | None = None,
        *,
        service: str = "image-service",
        tenant: str = "tenant-a",
        policy: bytes = POLICY,
        dry_run: bool = False,
        called: str = "",
    ) -> Verdict:
        decision = decide(parse_policy(policy), found or evidence(suspected()))
        names = (called,) if called else ()
        caller = Caller(service, tenant, "request-17", "CN=image-service", adapter_names=names)
        return recorder.record(decision, caller, stage_times_s={"response": 0.41}, dry_run=dry_run)

    return one


@pytest.fixture
def reviews(recorder: Recorder) -> Reviews:
    rules = ReviewRules(frozenset({"high", "critical"}), LONGEST)
    return Reviews(recorder, rules, told=lambda _: None)


@pytest.fixture
def approve(reviews: Reviews) -> Callable[..., None]:
    """A reviewer approves, beside the console."""

    def one(verdict: Verdict, reviewer: str = "mallory", position: int = 0) -> None:
        reviews.act(
            verdict.decision_id,
            ReviewAction.APPROVE,
            reviewer=reviewer,
            reason="Seen by the brand team.",
            position=position,
            expires_at=datetime.now(UTC) + timedelta(days=30),
        )

    return one


SECRET = "0123456789abcdef" * 4
"""Of the sessions and of the proxy."""


@pytest.fixture(scope="session")
def library() -> ConceptLibrary:
    return ConceptLibrary.open(EMBEDDED_LIBRARY)


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_bytes(POLICY)
    return file


@pytest.fixture
def uncalibrated() -> dict[str, tuple[str, ...]]:
    """By base model the concepts that no calibration speaks for; a test may change it."""
    return {"emoji-tiny": ()}


@pytest.fixture
def shelf() -> Shelf | None:
    """A library that may be changed; None where the console changes none."""
    return None


@pytest.fixture
async def client(
    recorder: Recorder,
    reviews: Reviews,
    library: ConceptLibrary,
    policy_file: Path,
    uncalibrated: dict[str, tuple[str, ...]],
    shelf: Shelf | None,
    tmp_path: Path,
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    section = ConsoleSection(
        enabled=True,
        public_url=ADDRESS,
        auth="proxy",
        proxy=ProxySection(secret_header="X-Proxy-Secret", secret_file=secret),
        roles=RolesSection(
            viewer=frozenset({"v"}),
            reviewer=frozenset({"r"}),
            admin=frozenset({"a"}),
            concept_editor=frozenset({"e"}),
        ),
        session_secret_file=secret,
    )
    access = make_access(section)
    await access.start()
    sources = Sources(
        recorder,
        reviews,
        (lambda: library) if shelf is None else shelf.served,
        policy_file,
        lambda: uncalibrated,
        frozenset({"secret"}),
        None if shelf is None else shelf.editing,
    )
    root = web.Application(client_max_size=64 * 1024)
    root.add_subapp("/console", console_application(sources, access))
    async with TestClient(TestServer(root)) as running:
        yield running
    await access.close()


@pytest.fixture
def browser(client: TestClient[web.Request, web.Application]) -> Opens:
    """Opens the browser of a person: group v, r or a, and the languages that are preferred."""

    def one(group: str = "r", name: str = "alice", language: str = "en") -> Browser:
        headers = {
            "Host": ADDRESS.partition("://")[2],
            "X-Forwarded-User": name,
            "X-Forwarded-Groups": group,
            "X-Proxy-Secret": SECRET,
            "Accept-Language": language,
        }
        return Browser(client, headers)

    return one
