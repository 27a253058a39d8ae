"""Few-shot classification of images (paper, section 5.2): domain · experiments · table · plots · show (tasks as a
picture)."""
