"""Everything heavy that a server loads, before any thread exists, to be forked from."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded, as by the command

import loragate_server.access.access
import loragate_server.app.serve
import loragate_server.cli.command
import loragate_server.console.app  # noqa: F401
