"""Reading what requests hold: bodies, forms, tags, strengths and references."""
