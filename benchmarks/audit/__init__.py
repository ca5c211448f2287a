"""How good the audit is: a zoo of adapters, ours and the alternatives on the same ones."""
