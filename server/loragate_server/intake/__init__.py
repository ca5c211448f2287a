"""From bytes that strangers made to an `Adapter`: sources, checks, store, weight deltas."""
