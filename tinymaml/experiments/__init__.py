"""The paper's experiments on the training loop: sinusoid/, few_shot/ (images), control/ (reinforcement learning).

Each has settings · training (what is trained and evaluated) · table · plots. registry has all of them by name, run
trains methods into a run's folder, side by side, and evaluates what is there.
"""
