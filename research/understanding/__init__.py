"""Looking inside networks: what they do, and why they say what they say."""
