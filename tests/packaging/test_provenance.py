"""What a commit builds is attested, and nothing else is believed."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from loragate._signed.keys import TrustedKeys
from loragate_server.config.signing import SigningKey, SigningSection
from scripts import provenance
from scripts.supply import attesting
from scripts.supply.building import build, copy_of
from scripts.supply.source import SourceError, clean_source, epoch_of
from scripts.supply.statement import read_statement
from scripts.supply.verifying import SUFFIX, Expected, RefusedError, sha256_of, verify
from testkit.signing import Kind, envelope_of, new_key, openssl_accepts, write_private, write_public
from testkit.waiting import at_most
from tests.packaging.conftest import git

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "supply-chain.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
BUILDER, SOURCE = "https://ci.example/loragate", "git+https://loragate.example/source"
WHEEL = "loragate_kernels-0.1.0-py3-none-any.whl"
EXPECTED = Expected(BUILDER, SOURCE)
Make = Callable[[Iterable[str]], Path]


@dataclass(frozen=True)
class Published:
    """A folder with files and their provenance, the repository, and the keys."""

    root: Path
    dist: Path
    files: attesting.Files
    private: Any
    public: Path

    def verify(self, name: str = WHEEL, expected: Expected = EXPECTED) -> None:
        keys = TrustedKeys(self.public)
        verify(self.dist / name, self.dist / f"{name}{SUFFIX}", keys, expected)

    def forge(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Signs something else with the trusted key."""
        file = self.dist / f"{WHEEL}{SUFFIX}"
        said = json.loads(payload_of(file))
        change(said)
        file.write_bytes(envelope_of(said, key=self.private))


def payload_of(file: Path) -> bytes:
    return base64.b64decode(json.loads(file.read_bytes())["payload"])


@pytest.fixture(scope="module")
def once(make_repository: Make) -> tuple[Path, attesting.Files, Path]:
    """The repository, what its commit builds, and a folder with that."""
    root = make_repository(["kernels"])
    source = clean_source(root)
    files = attesting.built(source, ["kernels"])
    dist = root / "build" / "dist"
    source.export(root / "build" / "tree")
    build(root / "build" / "tree", dist, source.epoch, ["kernels"])
    return root, files, dist


@pytest.fixture(params=["ed25519", "p256"])
def published(
    once: tuple[Path, attesting.Files, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Published:
    kind: Kind = request.param
    root, files, built = once
    private = new_key(kind)
    key = write_private(private, tmp_path / "release.pem")
    shutil.copytree(built, dist := tmp_path / "dist")
    shutil.copy(root / attesting.LOCK, dist)
    sign = attesting.signer(SigningSection(keys=(SigningKey(id="key", file=key),)))
    made = attesting.attested(clean_source(root), files, BUILDER, SOURCE)
    for name, payload in made.items():
        (dist / name).write_bytes(sign(payload))
    public = write_public(private, tmp_path / "release.pub")
    return Published(root, dist, files, private, public)


def test_wheel_sdist_and_lock_are_attested_and_verified(published: Published) -> None:
    assert set(published.files) == {WHEEL, "loragate_kernels-0.1.0.tar.gz", attesting.LOCK}
    commit = git(published.root, "rev-parse", "HEAD")
    for name, (sha256, path) in published.files.items():
        file = published.dist / name
        keys = TrustedKeys(published.public)
        found = verify(
            file, file.with_name(f"{name}{SUFFIX}"), keys, replace(EXPECTED, commit=commit)
        )
        assert (found.said.name, found.said.sha256) == (name, sha256_of(file))
        assert found.said.sha256 == sha256
        assert (found.said.origin.commit, found.said.origin.path) == (commit, path)


def test_what_is_signed_is_in_toto_with_provenance_of_slsa(published: Published) -> None:
    file = published.dist / f"{WHEEL}{SUFFIX}"
    assert openssl_accepts(file.read_bytes(), published.public, published.dist)
    said = json.loads(payload_of(file))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    [subject] = said["subject"]
    assert subject == {"name": WHEEL, "digest": {"sha256": sha256_of(published.dist / WHEEL)}}
    definition, run = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    commit = git(published.root, "rev-parse", "HEAD")
    assert definition["buildType"] == "urn:loragate:build:v1"
    assert definition["externalParameters"] == {
        "source": SOURCE,
        "commit": commit,
        "path": "kernels",
    }
    assert definition["internalParameters"] == {"SOURCE_DATE_EPOCH": "1767323045"}
    first, *inputs = definition["resolvedDependencies"]
    assert first == {"uri": SOURCE, "digest": {"gitCommit": commit}}
    assert [one["name"] for one in inputs] == list(attesting.INPUTS)
    assert run["builder"]["id"] == BUILDER
    assert set(run["builder"]["version"]) == {"build", "python", "setuptools", "zlib"}


def test_the_same_commit_is_attested_in_the_same_words(published: Published) -> None:
    source = clean_source(published.root)
    one, two = (attesting.attested(source, published.files, BUILDER, SOURCE) for _ in range(2))
    assert one == two


def test_a_file_that_was_changed_is_refused(published: Published) -> None:
    with (published.dist / WHEEL).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RefusedError, match=r"has the sha256 .* was attested\. Install"):
        published.verify()


def test_provenance_of_another_file_is_refused(published: Published) -> None:
    shutil.copy(published.dist / WHEEL, published.dist / "other.whl")
    shutil.copy(published.dist / f"{WHEEL}{SUFFIX}", published.dist / f"other.whl{SUFFIX}")
    with pytest.raises(RefusedError, match=r"is about loragate_kernels-.*, not other\.whl"):
        published.verify("other.whl")


@pytest.mark.parametrize("name", ["builder", "source", "commit"])
def test_another_origin_than_the_one_that_is_named_is_refused(
    published: Published, name: str
) -> None:
    with pytest.raises(RefusedError, match=f"is of the {name} .*, not https://else.example"):
        published.verify(expected=replace(EXPECTED, **{name: "https://else.example"}))


def test_another_key_a_revoked_one_and_none_are_refused(
    published: Published, tmp_path: Path
) -> None:
    file, beside = published.dist / WHEEL, published.dist / f"{WHEEL}{SUFFIX}"
    other = TrustedKeys(write_public(new_key(), tmp_path / "other.pub"))
    with pytest.raises(ValueError, match="No key that is trusted here has signed the provenance"):
        verify(file, beside, other, EXPECTED)
    envelope = json.loads(beside.read_bytes())
    for signatures, said in (([], "has no signature"), ([{"sig": "AAAA"}], "No key")):
        beside.write_text(json.dumps({**envelope, "signatures": signatures}))
        with pytest.raises(ValueError, match=said):
            published.verify()
    beside.write_bytes(b"")
    with pytest.raises(RefusedError, match="is empty"):
        published.verify()
    beside.write_bytes(b"{" * 2_000_000)
    with pytest.raises(ValueError, match="It is no envelope of a provenance"):
        published.verify()


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(said: Any) -> None:
        for part in path[:-1]:
            said = said[part]
        said[path[-1]] = value

    return change


_DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_set("predicateType", value="https://slsa.dev/verification_summary/v1"), "no provenance"),
        (_set("_type", value="https://in-toto.io/Statement/v0.1"), "no provenance"),
        (_set("subject", value=[]), "not about one file"),
        (_set("subject", 0, "digest", value={"sha1": "a" * 40}), "sha256 is missing"),
        (_set("subject", 0, "digest", "sha256", value="A" * 64), "digest is none"),
        (_set(*_DEFINITION, "buildType", value="urn:else"), "buildType"),
        (_set(*_DEFINITION, "externalParameters", "patch", value="x"), "not known here: patch"),
        (_set(*_DEFINITION, "externalParameters", "commit", value="main"), "commit is none"),
        (_set(*_DEFINITION, "externalParameters", "commit", value="a" * 40), "not of the commit"),
        (_set(*_DEFINITION, "resolvedDependencies", value=[]), "not of the commit"),
        (_set("predicate", "runDetails", "builder", value={}), "id is missing"),
        (_set("predicate", value=None), "predicate is missing"),
    ],
)
@pytest.mark.parametrize("published", ["ed25519"], indirect=True)
def test_what_a_trusted_key_signs_and_is_no_provenance_is_refused(
    published: Published, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    published.forge(change)
    with pytest.raises(RefusedError, match=f"cannot be understood: .*{why}"):
        published.verify()


def test_a_signed_verdict_is_no_provenance(published: Published) -> None:
    verdict = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "adapter-0", "digest": {"sha256": "a" * 64}}],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {},
    }
    with pytest.raises(ValueError, match="no provenance"):
        read_statement(json.dumps(verdict).encode())


@pytest.fixture
def repository(once: tuple[Path, attesting.Files, Path], tmp_path: Path) -> Path:
    """A clone that may be spoilt."""
    git(tmp_path, "clone", "--quiet", str(once[0]), "clone")
    return tmp_path / "clone"


@pytest.mark.parametrize("how", ["changed", "staged", "added", "removed"])
def test_a_tree_with_changes_is_refused(repository: Path, how: str) -> None:
    assert clean_source(repository).epoch == 1_767_323_045
    file = repository / "kernels" / ("new.py" if how == "added" else "README.md")
    if how == "removed":
        file.unlink()
    else:
        file.write_text("something else")
    if how == "staged":
        git(repository, "add", "--all")
    with pytest.raises(
        SourceError, match=rf"differs from its commit: kernels/{file.name}\. Commit"
    ):
        clean_source(repository)


def test_a_folder_that_is_no_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SourceError, match=r"git says nothing of .*Work in a clone"):
        clean_source(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SourceError, match="not 'yesterday'"):
        epoch_of(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    assert epoch_of(tmp_path) == 12


def test_a_file_that_the_commit_does_not_build_is_not_attested(published: Published) -> None:
    files = {name: one for name, one in published.files.items() if name != attesting.LOCK}
    for file in (*published.dist.glob(f"*{SUFFIX}"), published.dist / attesting.LOCK):
        file.unlink()
    attesting.require_built(files, published.dist)
    (published.dist / "stray.whl").touch()
    with pytest.raises(SourceError, match=r"stray\.whl is nothing that the commit builds"):
        attesting.require_built(files, published.dist)
    (published.dist / "stray.whl").unlink()
    (published.dist / WHEEL).write_bytes(b"other")
    with pytest.raises(SourceError, match="and the commit builds"):
        attesting.require_built(files, published.dist)
    (published.dist / WHEEL).unlink()
    with pytest.raises(SourceError, match=r"is not there\. Build it: `make packages`"):
        attesting.require_built(files, published.dist)


def test_the_command_verifies_and_says_what_it_did_not_look_at(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--verify", str(published.dist / WHEEL), "--trust", str(published.public)]
    assert provenance.main([*words, "--builder", BUILDER]) == 0
    said = capsys.readouterr()
    assert f"built by {BUILDER} from {SOURCE} at " in said.out
    assert said.err == "provenance: not named, so not checked: --source, --commit\n"
    assert provenance.main([*words, "--builder", "https://else.example"]) == 1
    assert "not https://else.example" in capsys.readouterr().err
    (published.dist / f"{WHEEL}{SUFFIX}").unlink()
    assert provenance.main(words) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--verify"],
        ["file"],
        ["--verify", "file"],
        ["--verify", "file", "--trust", "key", "--commit", "main"],
        ["--builder", "nobody", "--source", SOURCE, "--key-id", "k", "--key", "k.pem"],
        ["--source", SOURCE, "--key-id", "k", "--key", "k.pem"],
        ["--builder", BUILDER, "--source", SOURCE, "--key-id", "k"],
        ["--builder", BUILDER, "--source", SOURCE, "--key", "k.pem"],
    ],
)
def test_wrong_usage_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        provenance.main(words)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def run(block: str, root: Path) -> subprocess.CompletedProcess[str]:
    """A block of the documentation, as it stands."""
    paths = os.pathsep.join(str(root / name) for name in ("", "client", "kernels", "server"))
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=root,
        env=os.environ | {"PYTHONPATH": paths, "PATH": binaries},
        capture_output=True,
        text=True,
        check=False,
        timeout=at_most(120),
    )


@pytest.mark.parametrize("published", ["ed25519"], indirect=True)
def test_openssl_alone_verifies_as_the_documentation_has_it(
    published: Published, tmp_path: Path
) -> None:
    [block] = [one for one in BLOCKS if "pkeyutl" in one]
    here = tmp_path / "clone"  # the key lies beside it
    (supply := here / "build" / "supply").mkdir(parents=True)
    shutil.copy(published.dist / attesting.LOCK, here)
    shutil.copy(published.dist / f"{attesting.LOCK}{SUFFIX}", supply)
    done = run(block, here)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert git(published.root, "rev-parse", "HEAD") in done.stdout
    with (here / attesting.LOCK).open("a") as lock:
        lock.write("\n")
    assert run(block, here).returncode != 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_the_documentation_publishes_it_verifies(make_repository: Make) -> None:
    root = make_repository(["client", "kernels", "server"])
    copy_of(root, root / "build" / "tree")
    build(root / "build" / "tree", root / "build" / "dist", epoch_of(root))
    [publish] = [one for one in BLOCKS if "genpkey" in one]
    [check] = [one for one in BLOCKS if "--verify" in one]
    done = run(publish, root)
    assert done.returncode == 0, done.stderr
    supply = root / "build" / "supply"
    assert len(list(supply.glob(f"*{SUFFIX}"))) == 6 + 1 + 4
    made = {file.name: file.read_bytes() for file in supply.glob("*.cdx.json")}
    assert len(made) == 4
    done = run(check, root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("signed by") == 3
    done = run("python -m scripts.sbom --dist build/dist", root)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in supply.glob("*.cdx.json")} == made
