"""Generated messages of the two protocols by which Envoy asks; `scripts/proto.sh` makes them."""
