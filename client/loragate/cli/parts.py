"""Parts of the parser that several commands share, and words that stand in several places."""

from __future__ import annotations

import argparse

from loragate.cli import values
from loragate.reference import LOADERS

FORMATS = ("table", "json", "sarif", "junit", "html", "csv")
FAIL_ON = ("review", "block")

EXIT_CODES = """\
exit codes:
  0  every adapter may be loaded (ALLOW; of a pilot, whatever enforcing would say)
  1  at least one must not be loaded (BLOCK), and there is a decision for each
  2  a person has to look at one (REVIEW or INCONCLUSIVE), none is blocked
  3  for at least one there is no decision: bad file, wrong arguments, no service
  4  at least one has an ALLOW on which no load may rest: of a dry run, about some concepts
     only, or one that has run out; none is worse
Of several, the gravest counts: 3 before 1, 1 before 2, 2 before 4, and 4 before 0.
"""


def add_use(parser: argparse.ArgumentParser) -> None:
    """How the adapters will be used, which a verdict has to speak for."""
    parser.add_argument(
        "--loader",
        choices=LOADERS,
        metavar="NAME",
        help=f"what will load it: the verdict must speak for that ({', '.join(LOADERS)})",
    )
    parser.add_argument(
        "--strength",
        type=values.strength,
        metavar="X",
        help="strength that will be used (default: 1)",
    )
    parser.add_argument(
        "--text-encoder-strength",
        type=values.strength,
        metavar="X",
        help="default: that of --strength",
    )
