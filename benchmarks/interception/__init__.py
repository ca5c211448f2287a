"""What a proxy that asks loragate adds to a request that loads nothing."""
