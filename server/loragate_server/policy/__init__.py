"""The operator's rules: a YAML file, and what it makes of the evidence of an audit."""
