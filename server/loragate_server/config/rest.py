"""The section `rest` of the configuration: the API as JSON over HTTP."""

from __future__ import annotations

from loragate_server.config.section import Section


class RestSection(Section):
    """The API as JSON on the HTTP port.

    Attributes:
        enabled: whether it is there. Callers need what they need over gRPC, and a token wherever
            strangers can reach the port.
    """

    enabled: bool = True
