"""Few-shot classification of images (paper, section 5.2): settings · data · training · table · plots · show (tasks as a
picture)."""
