"""Which layers of a base model each loader changes with the same bytes, and at which scale.

One rule per loader, written from its source. A rule is given the `Layout` of a file, in which no
scale has been applied, and answers with a `Meaning` or refuses the file. What the rules say decides
how many readings of a file are audited.
"""
