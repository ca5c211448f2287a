"""What stops a console from starting, what does not, and what people see who come meanwhile."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from loragate_server.access import make_access
from loragate_server.config.console import ConsoleSection
from tests.server.access.conftest import Clock, Console, MakeConsole, oidc
from tests.server.access.openid import OpenIdProvider


def section(folder: Path, **settings: Any) -> ConsoleSection:
    return ConsoleSection.model_validate(
        {
            "enabled": True,
            "public_url": "https://loragate.example.com",
            "roles": {"admin": ["admins"]},
            "session_secret_file": folder / "session",
            "oidc": {
                "issuer": "https://sso.example.com/realms/studio",
                "client_id": "loragate",
                "client_secret_file": folder / "client",
            },
            **settings,
        }
    )


@pytest.mark.parametrize("role", ["reviewer", "admin"])
def test_who_names_people_without_a_secret_may_name_nobody_who_changes_anything(
    secrets_folder: Path, role: str
) -> None:
    """Any program on this machine could be the proxy otherwise."""
    roles = {"viewer": ["everyone"], role: ["some"]}
    with pytest.raises(ValidationError, match=r"proxy\.secret_header and proxy\.secret_file"):
        section(secrets_folder, auth="proxy", roles=roles)
    section(secrets_folder, auth="proxy", roles={"viewer": ["everyone"]})
    section(secrets_folder, auth="proxy", roles=roles, enabled=False)
    secret = {"secret_header": "X-Secret", "secret_file": secrets_folder / "proxy"}
    section(secrets_folder, auth="proxy", roles=roles, proxy=secret)


async def test_secrets_are_read_once_and_nobody_is_asked(secrets_folder: Path) -> None:
    access = make_access(section(secrets_folder))
    await access.start()
    await access.close()
    await access.close()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("session", b"too short", "holds 9 bytes and needs at least 32"),
        ("session", b"a" * 64, "can be guessed"),
        ("session", b"\n", "is empty"),
        ("session", None, "cannot be read"),
        ("client", b"", "is empty"),
        ("client", b"caf\xc3\xa9", "no ASCII text"),
        ("client", None, "cannot be read"),
        ("proxy", None, "cannot be read"),
    ],
)
async def test_unusable_secrets_are_named(
    secrets_folder: Path, file: str, content: bytes | None, sentence: str
) -> None:
    path = secrets_folder / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    settings: dict[str, Any] = {}
    if file == "proxy":
        settings = {"auth": "proxy", "proxy": {"secret_header": "X-Secret", "secret_file": path}}
    with pytest.raises(ValueError, match=sentence) as error:
        make_access(section(secrets_folder, **settings))
    assert str(path) in str(error.value)


WITHOUT_PACKAGES = """
    import sys
    from pathlib import Path
    from loragate_server.config.console import ConsoleSection
    sys.modules["authlib"] = None
    from loragate_server.access import make_access
    folder = Path(sys.argv[1])
    settings = {
        "public_url": "https://loragate.example.com",
        "session_secret_file": folder / "session",
        "oidc": {
            "issuer": "https://sso.example.com",
            "client_id": "loragate",
            "client_secret_file": folder / "client",
        },
    }
    make_access(ConsoleSection(**settings, auth="proxy"))
    print("proxy works")
    try:
        make_access(ConsoleSection(**settings))
    except ValueError as error:
        print(error)
"""


def test_without_the_extra_packages_proxies_still_work_and_oidc_says_what_to_install(
    secrets_folder: Path,
) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT_PACKAGES), secrets_folder],
        capture_output=True,
        text=True,
        check=False,
    )
    first, second = said.stdout.splitlines()
    assert first == "proxy works"
    assert "pip install 'loragate-server[console]'" in second
    assert said.stderr == ""


async def test_a_provider_that_is_down_is_said_to_be_and_tried_again(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path, clock: Clock
) -> None:
    settings = oidc(provider, secrets_folder)
    console = await make_console(oidc=settings)
    provider.redirect_uris.add(f"{console.url}/console/callback")
    provider.statuses["/.well-known/openid-configuration"] = 503
    browser = await console.new_browser()
    for _ in range(3):
        answer = await browser.get("/console/page")
        assert (answer.status, answer.code) == (503, "provider_down")
        assert answer.headers["Retry-After"] == "30"
    assert provider.times_asked("/.well-known/openid-configuration") == 1
    provider.statuses.clear()
    clock.ahead_s += 4
    assert (await browser.get("/console/page")).status == 200


async def test_a_provider_that_is_not_there_is_said_to_be_down(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> None:
    console = await make_console(oidc=oidc(provider, secrets_folder))
    await provider.close()
    answer = await (await console.new_browser()).get("/console/page")
    assert (answer.status, answer.code) == (503, "provider_down")
    assert "Audits go on" in answer.text


async def test_a_provider_that_does_not_answer_is_given_up(
    make_console: MakeConsole,
    provider: OpenIdProvider,
    secrets_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loragate_server.access.provider.TIMEOUT_S", 0.2)
    provider.delays_s["/.well-known/openid-configuration"] = 5
    console = await make_console(oidc=oidc(provider, secrets_folder))
    answer = await (await console.new_browser()).get("/console/page")
    assert (answer.status, answer.code) == (503, "provider_down")
    assert "no answer in time" in answer.text


@pytest.mark.parametrize("path", ["/token", "/keys"])
@pytest.mark.parametrize(
    ("status", "code"), [(500, "provider_down"), (429, "provider_down"), (404, "provider_wrong")]
)
async def test_failures_on_the_way_are_told_apart(
    console: Console, provider: OpenIdProvider, path: str, status: int, code: str
) -> None:
    provider.statuses[path] = status
    answer = await (await console.new_browser()).get("/console/page")
    assert answer.code == code
    assert answer.status in (502, 503)


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://elsewhere.example.com"},
        {"token_endpoint": None},
        {"token_endpoint": "http://elsewhere.example.com/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": 7},
        {"filler": "a" * 1_100_000},
    ],
    ids=lambda description: str(description)[:60],
)
async def test_a_provider_that_describes_itself_wrongly_is_not_used(
    console: Console, provider: OpenIdProvider, description: dict[str, Any]
) -> None:
    provider.description = description
    answer = await (await console.new_browser()).get("/console/page")
    assert (answer.status, answer.code) == (502, "provider_wrong")


async def test_a_wrong_client_secret_is_a_matter_of_settings(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> None:
    (secrets_folder / "client").write_text("another")
    console = await make_console(oidc=oidc(provider, secrets_folder))
    provider.redirect_uris.add(f"{console.url}/console/callback")
    answer = await (await console.new_browser()).get("/console/page")
    assert (answer.status, answer.code) == (502, "provider_wrong")
    assert "invalid_client" in answer.text


async def test_the_client_secret_may_be_posted(console: Console, provider: OpenIdProvider) -> None:
    provider.description["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    assert (await (await console.new_browser()).get("/console/page")).status == 200
