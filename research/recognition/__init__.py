"""The use of embeddings: known identities, and pairs of a person's own files."""
