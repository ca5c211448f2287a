"""A stand-in for the service, for the tests of programs that use `loragate`."""

from loragate.testing.fake_server import FakeAuditServer, RecordedCall

__all__ = ["FakeAuditServer", "RecordedCall"]
