"""Sequences out of models of the next token, and captions as a person reads them."""
