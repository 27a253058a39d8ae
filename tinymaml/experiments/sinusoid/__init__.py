"""Few-shot regression of sinusoids (paper, section 5.1): domain · experiments · table · plots."""
