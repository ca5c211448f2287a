"""The arguments of the command, and the help that teaches them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from loragate import __version__
from loragate._service_config import timeout_s
from loragate._target import DEFAULT_TARGET
from loragate.cli import values
from loragate.cli.completion import complete
from loragate.cli.exit_code import ExitCode
from loragate.cli.parts import EXIT_CODES, add_use
from loragate.cli.scan_parser import add_cache, add_completion, add_doctor, add_scan
from loragate.cli.signed_options import (
    VERIFY_EXAMPLES,
    add_accept,
    add_save,
    add_trust,
    add_verify,
)
from loragate.config import TARGET_VARIABLE
from loragate.reference import AuditOptions, is_sha256
from loragate.results import Verdict

_ABOUT = "Ask loragate whether LoRA adapters may be loaded into an image server."

_ENVIRONMENT = """\
environment: an option that is not given is read from the variable named beside it. Without a
decision nothing is allowed, so LORAGATE_ON_UNAVAILABLE and LORAGATE_ON_REVIEW are not read.
LORAGATE_CLOCK_SKEW_S is how far the clocks of this machine and the service may be apart.
A proxy in grpc_proxy, https_proxy or http_proxy is used, unless no_proxy names the host.
"""

_AUDIT_EXAMPLES = """\
examples:
  loragate audit style.safetensors
  loragate audit --strength 0.8 --base-model sdxl *.safetensors
  loragate audit --loader comfyui --dry-run style.safetensors
  loragate audit --remote hf://owner/name /models/style.safetensors
  loragate audit --together style.safetensors face.safetensors
  loragate audit face.safetensors --embedding face-token.safetensors
  loragate audit --json style.safetensors | jq .findings[0]

"""

_GATE_DIR_EXAMPLES = """\
examples:
  loragate gate-dir /models/loras
  loragate gate-dir --sarif loras.sarif --junit loras.xml /models/loras
  loragate gate-dir --quarantine /models/quarantine /models/loras

Safetensors files are audited. Pickles, other weights, links and files of unknown kinds are
refused; pictures and texts beside them are passed over.

"""


class _Parser(argparse.ArgumentParser):
    """Leaves with the code for errors; argparse would use 2, which here means REVIEW."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(ExitCode.ERROR, f"{self.prog}: {message}\n")


_LONGEST_AUDIT = (
    f"{timeout_s('loragate.v1.AuditService/Audit'):g} for an audit, and "
    f"{timeout_s('loragate.v1.AuditService/AuditUpload'):g} with a large file"
)
_LONGEST_READ = f"{timeout_s('loragate.v1.AuditService/GetAudit'):g}"

_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the arguments; leaves with the code for errors where they are wrong."""
    parser = build_parser()
    complete(parser)
    options = parser.parse_args(arguments)
    if options.command == "audit" and not (options.files or options.embeddings):
        parser.error("audit: name a FILE or an --embedding")
    since, before = (getattr(options, name, None) for name in ("since", "before"))
    if since and before and before <= since:
        parser.error("list: --before is not later than --since, so nothing lies between them")
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of `loragate`."""
    parser = _Parser(
        prog="loragate",
        description=_ABOUT,
        epilog="examples:\n  loragate audit style.safetensors\n  loragate list --verdict block\n\n"
        + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"loragate {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_audit(commands)
    _add_get(commands)
    _add_list(commands)
    _add_concepts(commands)
    _add_gate_dir(commands)
    _add_verify(commands)
    add_scan(commands)
    add_doctor(commands)
    add_cache(commands)
    add_completion(commands)
    return parser


def _command(
    commands: _Commands,
    name: str,
    summary: str,
    epilog: str,
    *,
    longest: str = _LONGEST_READ,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog.rstrip() + "\n\n" + _ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    service = parser.add_argument_group("service")
    service.add_argument(
        "--target",
        metavar="HOST:PORT",
        help=f"where the service is (default: ${TARGET_VARIABLE}, else {DEFAULT_TARGET})",
    )
    service.add_argument(
        "--timeout",
        type=values.seconds,
        metavar="SECONDS",
        help=f"longest wait for each answer (default: $LORAGATE_TIMEOUT_S, else {longest})",
    )
    service.add_argument("--tls", action="store_true", help="speak TLS; implied by --tls-*")
    service.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="certificates to trust (PEM; default: $LORAGATE_TLS_CA, else the system's)",
    )
    service.add_argument(
        "--tls-cert", metavar="FILE", help="own certificate (PEM; default: $LORAGATE_TLS_CERT)"
    )
    service.add_argument(
        "--tls-key",
        metavar="FILE",
        help="private key of --tls-cert (PEM; default: $LORAGATE_TLS_KEY)",
    )
    service.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="name to expect in the server's certificate, where it is not the one in --target "
        "(default: $LORAGATE_TLS_SERVER_NAME)",
    )
    service.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with a bearer token (default: $LORAGATE_TOKEN_FILE)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    return parser


def _add_audit(commands: _Commands) -> None:
    parser = _command(
        commands,
        "audit",
        "decide whether adapters may be loaded",
        _AUDIT_EXAMPLES + EXIT_CODES,
        longest=_LONGEST_AUDIT,
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=values.place,
        metavar="FILE",
        help="safetensors file on this machine",
    )
    parser.add_argument(
        "--embedding",
        action="append",
        default=[],
        dest="embeddings",
        type=values.place,
        metavar="FILE",
        help="embedding of a new word (a textual inversion) that is used with FILE, or alone where "
        "there is none; repeatable. It has no strength",
    )
    parser.add_argument(
        "--remote", action="store_true", help="FILE is a path or URI that the server reads"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="audit all as active at the same time, for one verdict (default: each by itself)",
    )
    _add_question(parser)
    add_save(parser)
    add_trust(parser)


def _add_question(parser: argparse.ArgumentParser) -> None:
    """What is asked about each adapter."""
    parser.add_argument(
        "--base-model",
        default=os.environ.get("LORAGATE_BASE_MODEL", ""),
        metavar="NAME",
        help="base model to audit on (default: $LORAGATE_BASE_MODEL, else the service's own)",
    )
    parser.add_argument(
        "--base-digest",
        type=values.sha256,
        metavar="SHA256",
        help="digest that this base model must have (default: $LORAGATE_BASE_DIGEST)",
    )
    add_use(parser)
    parser.add_argument(
        "--concept",
        action="append",
        default=[],
        type=values.place,
        metavar="ID",
        help="audit only this concept; repeatable. `loragate concepts list` shows the ids. The "
        "service's policy has to allow the caller to ask so (restrict.callers), and no load may "
        "rest on such an answer: ALLOW leaves with 4",
    )
    parser.add_argument("--dry-run", action="store_true", help="do not record a binding decision")


def asked_of(options: argparse.Namespace) -> AuditOptions:
    """What `audit` and `gate-dir` were told to ask about each adapter."""
    return {
        "base_model": options.base_model,
        "expected_base_digest": options.base_digest or base_digest_of_environment(),
        "loader": options.loader or "",
        "strength": options.strength,
        "text_encoder_strength": options.text_encoder_strength,
        "concept_ids": options.concept,
        "dry_run": options.dry_run,
    }


def base_digest_of_environment() -> str | None:
    """The digest of the base model in the environment.

    Raises:
        ValueError: it is none.
    """
    text = os.environ.get("LORAGATE_BASE_DIGEST") or None
    if text is not None and not is_sha256(text):
        raise ValueError(f"LORAGATE_BASE_DIGEST is a hexadecimal sha256, not {text!r}.")
    return text


def _add_get(commands: _Commands) -> None:
    parser = _command(
        commands,
        "get",
        "show a recorded decision",
        "example:\n  loragate get 4f1c...\n\n" + EXIT_CODES,
    )
    parser.add_argument("decision_id", type=values.place, metavar="ID", help="decision id")
    add_save(parser)
    add_trust(parser)


def _add_list(commands: _Commands) -> None:
    parser = _command(
        commands,
        "list",
        "list recorded decisions, newest first",
        "examples:\n  loragate list --verdict block --limit 10\n"
        "  loragate list --service gallery --since 2026-11-01 --before 2026-12-01\n\n"
        "Leaves with 0, or with 3 when the list cannot be had.",
    )
    parser.add_argument(
        "--verdict", type=str.upper, choices=[v.value for v in Verdict], help="only these"
    )
    parser.add_argument(
        "--sha256",
        type=values.sha256,
        metavar="HEX",
        help="only of the adapter with this digest, in full",
    )
    parser.add_argument("--service", metavar="NAME", help="only those that this service asked for")
    parser.add_argument("--base-model", metavar="NAME", help="only those on this base model")
    when = "a day (from midnight UTC) or a time with its offset"
    parser.add_argument(
        "--since", type=values.moment, metavar="WHEN", help=f"only from then on: {when}"
    )
    parser.add_argument("--before", type=values.moment, metavar="WHEN", help="only of before then")
    parser.add_argument(
        "--limit", type=values.count, default=50, metavar="N", help="at most so many (default: 50)"
    )
    add_trust(parser)


def _add_concepts(commands: _Commands) -> None:
    concepts = commands.add_parser(
        "concepts", help="look at the concept library", description="Look at the concept library."
    )
    actions = concepts.add_subparsers(dest="action", required=True, metavar="ACTION")
    _command(
        actions,
        "list",
        "list the concepts of the library",
        "Leaves with 0, or with 3 when the list cannot be had.",
    )


def _add_gate_dir(commands: _Commands) -> None:
    parser = _command(
        commands,
        "gate-dir",
        "decide about all adapters of a folder, before a server starts with them",
        _GATE_DIR_EXAMPLES + EXIT_CODES,
        longest=_LONGEST_AUDIT,
    )
    parser.add_argument(
        "folder", type=values.place, metavar="DIR", help="folder to look through, with all below it"
    )
    _add_question(parser)
    parser.add_argument(
        "--concurrency",
        type=values.count,
        default=4,
        metavar="N",
        help="audits at a time (default: 4)",
    )
    parser.add_argument(
        "--sarif", type=values.place, metavar="FILE", help="also write a SARIF 2.1.0 report"
    )
    parser.add_argument(
        "--junit", type=values.place, metavar="FILE", help="also write a JUnit XML report"
    )
    parser.add_argument(
        "--quarantine",
        type=values.place,
        metavar="DIR",
        help="move what is not allowed there (default: move nothing)",
    )
    parser.add_argument(
        "--follow-symlinks", action="store_true", help="audit what links lead to (default: refuse)"
    )
    parser.add_argument(
        "--allow-empty", action="store_true", help="a folder without adapters is no error"
    )
    add_accept(parser)
    add_save(parser)
    add_trust(parser)


def _add_verify(commands: _Commands) -> None:
    summary = "check a signed verdict against files, without the service"
    add_verify(
        commands.add_parser(
            "verify",
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=VERIFY_EXAMPLES + EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
