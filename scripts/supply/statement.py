"""What is attested of a file: an in-toto statement with SLSA provenance, and its strict reader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loragate._signed.strict import strict_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:loragate:build:v1"
"""Described in docs/supply-chain.md."""

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PARAMETERS = frozenset({"source", "commit", "path"})


@dataclass(frozen=True)
class Origin:
    """Where a file comes from.

    Attributes:
        builder: URI of who built it.
        source: URI of the repository.
        commit: in full, hexadecimal.
        path: in the repository: the folder that was built, or the file itself.
    """

    builder: str
    source: str
    commit: str
    path: str


@dataclass(frozen=True)
class Attested:
    """What is said of one file: its name, sha256 (lower-case hexadecimal) and origin."""

    name: str
    sha256: str
    origin: Origin


def statement(
    said: Attested,
    epoch: int,
    tools: Mapping[str, str],
    inputs: Mapping[str, str],
) -> dict[str, Any]:
    """The statement as JSON values. It holds no moment but that of the commit.

    Args:
        said: of the file.
        epoch: SOURCE_DATE_EPOCH of the build.
        tools: what built it, and in which version.
        inputs: further files that decide what is built, to their sha256.
    """
    origin = said.origin
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": said.name, "digest": {"sha256": said.sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "source": origin.source,
                    "commit": origin.commit,
                    "path": origin.path,
                },
                "internalParameters": {"SOURCE_DATE_EPOCH": str(epoch)},
                "resolvedDependencies": [
                    {"uri": origin.source, "digest": {"gitCommit": origin.commit}},
                    *(
                        {"name": name, "digest": {"sha256": sha256}}
                        for name, sha256 in sorted(inputs.items())
                    ),
                ],
            },
            "runDetails": {
                "builder": {"id": origin.builder, "version": dict(sorted(tools.items()))}
            },
        },
    }


def read_statement(payload: bytes) -> Attested:
    """What a statement says of a file.

    Raises:
        ValueError: it is no such statement, contradicts itself, or has a parameter of the build
            that is not known, which may mean anything.
    """
    fields = strict_json(payload)
    if (fields.get("_type"), fields.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError("It is no provenance of SLSA in an in-toto statement.")
    predicate = _take(fields, "predicate", dict)
    definition = _take(predicate, "buildDefinition", dict)
    if definition.get("buildType") != BUILD_TYPE:
        raise ValueError(f"Its buildType is not {BUILD_TYPE}.")
    parameters = _take(definition, "externalParameters", dict)
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise ValueError(f"It has parameters that are not known here: {', '.join(unknown)}.")
    builder = _take(_take(predicate, "runDetails", dict), "builder", dict)
    origin = Origin(
        _matching(_take(builder, "id", str), URI, "builder.id"),
        _matching(_take(parameters, "source", str), URI, "source"),
        _matching(_take(parameters, "commit", str), COMMIT, "commit"),
        _take(parameters, "path", str),
    )
    _require_commit(_take(definition, "resolvedDependencies", list), origin)
    return _subject(_take(fields, "subject", list), origin)


def _require_commit(dependencies: list[Any], origin: Origin) -> None:
    named = {"uri": origin.source, "digest": {"gitCommit": origin.commit}}
    if named not in dependencies:
        raise ValueError("Its resolved dependencies are not of the commit that it names.")


def _subject(subjects: list[Any], origin: Origin) -> Attested:
    if len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise ValueError("It is not about one file.")
    name = _take(subjects[0], "name", str)
    sha256 = _take(_take(subjects[0], "digest", dict), "sha256", str)
    return Attested(name, _matching(sha256, _SHA256, "digest"), origin)


def _take(fields: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is missing, or no {kind.__name__}.")
    return value


def _matching(text: str, pattern: re.Pattern[str], name: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"Its {name} is none: {text[:80]!r}.")
    return text
