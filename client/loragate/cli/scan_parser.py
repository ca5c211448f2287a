"""The arguments of the commands that need no service."""

from __future__ import annotations

import argparse
from typing import Any

from loragate.cli import values
from loragate.cli.completion import SHELLS
from loragate.cli.parts import EXIT_CODES, FAIL_ON, FORMATS, add_use

_EPILOG = """\
examples:
  loragate scan style.safetensors
  loragate scan --exclude 'backup/*' /models/loras
  loragate scan --format sarif --output loras.sarif 'loras/**/*.safetensors'
  loragate scan hf://OWNER/NAME/style.safetensors s3://BUCKET/style.safetensors
  loragate scan --base /models/sdxl --calibration sdxl.json --policy policy.yaml loras

The engine of loragate-server runs for as long as the scan does (pip install 'loragate[scan]').
Folders are looked through as by `loragate gate-dir`: safetensors files are audited; pickles, other
weights, links and files of unknown kinds are refused; pictures and texts are passed over.

settings: what is not given is read from [scan] in .loragate.toml, here or in a folder above.

"""


def add_scan(commands: Any) -> None:
    """`loragate scan`; None stands for what was not given, for the settings file to fill in."""
    parser = commands.add_parser(
        "scan",
        help="decide about files without a service, by an engine of its own",
        description="Decide about files without a service, by an engine of its own.",
        epilog=_EPILOG + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=values.place,
        metavar="PATH",
        help="file, folder, pattern in quotes, hf://OWNER/NAME/FILE or s3://BUCKET/FILE",
    )
    _add_files(parser.add_argument_group("files"))
    _add_output(parser.add_argument_group("output"))
    _add_engine(parser.add_argument_group("engine"))
    add_use(parser)
    _add_settings(parser)


def add_doctor(commands: Any) -> None:
    """`loragate doctor`, with the options of a scan that choose what is used."""
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, what a scan would use, and what to mend",
        description="Say what is installed, what a scan would use, and what to mend. Starts the "
        "engine to see whether it does.",
        epilog="Leaves with 0, or with 3 where a scan would not work.",
    )
    _add_engine(parser.add_argument_group("engine"))
    _add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(**dict.fromkeys(_OF_SCANS))


def add_cache(commands: Any) -> None:
    """`loragate cache show` and `loragate cache clear`."""
    cache = commands.add_parser(
        "cache",
        help="look at what scans keep on this machine, or remove it",
        description="Look at what scans keep on this machine, or remove it.",
    )
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, what in (
        ("show", "say where it is, and how large"),
        ("clear", "remove answers, decisions and copies of files"),
    ):
        parser = actions.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        parser.add_argument(
            "--state", type=values.place, metavar="DIR", help="default: ~/.cache/loragate/scan"
        )
        if name == "clear":
            parser.add_argument("--probes", action="store_true", help="and those of the library")
        parser.add_argument("--no-settings", action="store_true", help="read no settings file")
        parser.set_defaults(**dict.fromkeys((*_OF_SCANS, *_OF_ENGINES)))


def add_completion(commands: Any) -> None:
    """`loragate completion SHELL`."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Print what makes a shell complete this command.",
        epilog='example:\n  eval "$(loragate completion bash)"    # in ~/.bashrc',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


_OF_SCANS = (
    "include",
    "exclude",
    "format",
    "fail_on",
    "loader",
    "strength",
    "text_encoder_strength",
    "follow_symlinks",
    "allow_empty",
)
_OF_ENGINES = ("base", "library", "policy", "calibration", "device", "threads", "timeout")
"""Settings that a command does not use, though the file may hold them."""


def _add_settings(parser: argparse.ArgumentParser) -> None:
    settings = parser.add_mutually_exclusive_group()
    settings.add_argument(
        "--settings", type=values.place, metavar="FILE", help="settings file, instead of a search"
    )
    settings.add_argument("--no-settings", action="store_true", help="read no settings file")


def _add_files(group: Any) -> None:
    for option, what in (("include", "only files that match"), ("exclude", "no file that matches")):
        group.add_argument(
            f"--{option}",
            action="append",
            metavar="PATTERN",
            help=f"{what}, by path or name; * stands for slashes too; repeatable",
        )
    _flag(group, "--follow-symlinks", "audit what links lead to (default: refuse)")
    _flag(group, "--allow-empty", "that there is no adapter is no error")


def _add_output(group: Any) -> None:
    group.add_argument(
        "--format", choices=FORMATS, help="form of the report (default: table, with colours)"
    )
    group.add_argument(
        "--output",
        type=values.place,
        metavar="FILE",
        help="write the report there, and print a table for people",
    )
    group.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        help="gentlest verdict with an exit code of its own: with `block`, REVIEW and INCONCLUSIVE "
        "leave with 0; a file without decision always leaves with 3 (default: review)",
    )
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        "--quiet", "-q", action="store_true", help="neither table nor progress; errors are said"
    )
    loudness.add_argument(
        "--verbose", "-v", action="store_true", help="say what is used, passed over, and why"
    )


def _add_engine(group: Any) -> None:
    for option, metavar, what in (
        ("base", "DIR", "base model in diffusers layout (default: the embedded one)"),
        ("library", "DIR", "folder of concepts (default: the embedded one)"),
        ("policy", "FILE", "policy file (default: the one that ships)"),
        ("calibration", "FILE", "made by `loragate-server calibrate` for these two"),
        ("device", "DEVICE", "cpu, cuda or cuda:N (default: cpu)"),
        ("state", "DIR", "record of scans (default: ~/.cache/loragate/scan)"),
    ):
        kind = values.device if option == "device" else str
        group.add_argument(f"--{option}", type=kind, metavar=metavar, help=what)
    group.add_argument(
        "--fresh",
        action="store_true",
        help="ask the engine about files, too, that an earlier scan had an answer about",
    )
    group.add_argument(
        "--threads", type=values.count, metavar="N", help="of the engine (default: 1)"
    )
    group.add_argument(
        "--timeout",
        type=values.seconds,
        metavar="SECONDS",
        help="longest wait for each answer (default: 600)",
    )


def _flag(group: Any, option: str, what: str) -> None:
    group.add_argument(option, action="store_true", default=None, help=what)
