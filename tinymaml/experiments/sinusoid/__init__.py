"""Few-shot regression of sinusoids (paper, section 5.1): settings · training · table · plots."""
