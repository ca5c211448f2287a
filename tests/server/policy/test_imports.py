"""The policy decides without torch."""

import subprocess
import sys


def test_deciding_imports_no_torch() -> None:
    code = (
        "import sys, loragate_server.policy.store, loragate_server.policy.decide;"
        "sys.exit(any(m.split('.')[0] in ('torch', 'numpy', 'grpc') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
