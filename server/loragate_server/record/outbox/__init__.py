"""Events that wait to be told to others: rows written with what they tell of, or not at all."""
