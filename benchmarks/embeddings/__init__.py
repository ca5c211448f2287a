"""How well the audit tells embeddings that learned a concept from harmless ones."""
