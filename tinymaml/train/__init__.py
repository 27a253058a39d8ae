"""Training, evaluating and showing the experiments."""
