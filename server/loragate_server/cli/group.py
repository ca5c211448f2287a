"""What holds for every subcommand of `loragate-server`: how arguments are taken, and help shown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

_NOTHING = ("", Path())
"""What an empty argument becomes: a path of no name is the present folder."""


class Group(typer.Typer):
    """A group of subcommands, which refuse empty arguments and fill the lines of their help."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """As `typer.Typer.command`."""
        made = super().command(*args, **{"cls": Command, **kwargs})

        def add(function: Any) -> Any:
            function.__doc__ = filled(inspect.getdoc(function) or "")
            return made(function)

        return add


class Command(TyperCommand):
    """A subcommand to which an empty argument is none.

    A shell gives one for a variable that is not set: `scan "$LORAS"` would look through the folder
    that happens to be the present one, and `--state-dir "$STATE"` write into it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses what was given as nothing, where nothing is no value of its own."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        if any(one == "" or (one.startswith("-") and one.endswith("=")) for one in given):
            for parameter in self.params:
                value = ctx.params.get(parameter.name)
                values = value if isinstance(value, list | tuple) else (value,)
                if parameter.default != "" and any(one in _NOTHING for one in values):
                    raise typer.BadParameter(
                        "is empty; give it a value, or leave it out",
                        ctx=ctx,
                        param_hint=parameter.opts[0],
                    )
        return rest


def filled(help_text: str) -> str:
    """Help with one line for each paragraph, which a terminal of any width breaks where it ends.

    What is indented, such as examples, stays as it is.
    """
    blocks = re.split(r"\n\s*\n", help_text)
    return "\n\n".join(
        block if block.startswith(" ") or "\n " in block else block.replace("\n", " ")
        for block in blocks
    )
