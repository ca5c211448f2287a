"""The command `loragate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from loragate.cli.exit_code import ExitCode
from loragate.cli.parser import parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parsed(arguments)
    # gRPC would write of its own about what goes wrong; the command says it once, in words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported only now, so that --help answers at once.
    from loragate.cli.commands import run
    from loragate.cli.table import printable
    from loragate.cli.told import told
    from loragate.errors import AuditError

    try:
        return int(run(options))
    except (AuditError, OSError, ValueError) as error:
        print(printable(f"loragate: {told(error)}"), file=sys.stderr)
        return int(ExitCode.ERROR)
    except KeyboardInterrupt:
        return 130
