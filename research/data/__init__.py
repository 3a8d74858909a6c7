"""Examples by name, and deterministic batches of them."""
