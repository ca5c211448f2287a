"""Completion of commands and options in a shell, by the library argcomplete."""

from __future__ import annotations

import argparse
import os
import sys

from loragate.cli.engine_config import INSTALL

SHELLS = ("bash", "zsh", "fish", "powershell")

_ASKED = "_ARGCOMPLETE"
"""Set by the shell's side of the library when it wants to know what could come next."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends, where it is a shell that asks; else does nothing."""
    if _ASKED not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)  # words here would appear in the middle of what is being typed
    argcomplete.autocomplete(parser)


def script(shell: str) -> str:
    """What a shell has to run once, so that it asks.

    Raises:
        ValueError: the library is not installed.
    """
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise ValueError(f"Completion needs argcomplete: {INSTALL}") from None
    return shellcode(["loragate"], shell=shell).strip() + "\n"
