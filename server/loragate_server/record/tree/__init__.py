"""The decision log as a Merkle tree: tiles, checkpoints, proofs, witnesses."""
