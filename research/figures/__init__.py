"""Pictures a person would rather look at: matplotlib figures, without pyplot's global state."""
