"""Reading local adapter files as the SDK itself does, for those who guard a loader of their own.

    data = read_once(path)
    require_plain(path)
    if client.audit(data).lets_in():
        load(data)

What is audited has to be what is loaded, so a file is read once; and what lies beside it must not
change what it does.
"""

from __future__ import annotations

from loragate._beside import CONFIG_NAME, require_plain
from loragate._reading import READ_LIMIT_S, read_head, read_once

__all__ = ["CONFIG_NAME", "READ_LIMIT_S", "read_head", "read_once", "require_plain"]
