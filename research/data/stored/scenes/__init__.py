"""Made-up pictures whose truth is known: digits on textures, and sentences about them."""
