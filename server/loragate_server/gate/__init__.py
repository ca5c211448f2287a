"""The one way through the house: intake, cache, queue, audit, policy, record, answer."""
