"""The loragate server: intake, audit, policy, record, answer. Data flows in that order only."""

__version__ = "0.1.0"
