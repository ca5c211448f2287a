"""A catalogue: hundreds of thousands of adapters, audited as one job on Ray Data."""
