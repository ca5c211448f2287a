"""Attackers who know the method: adapters that were trained against the audit itself."""
