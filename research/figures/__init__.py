"""Pictures for a person: matplotlib figures, without pyplot's global state."""
