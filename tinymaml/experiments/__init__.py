"""The paper's experiments: sinusoid/, few_shot/ (images), control/ (reinforcement learning).

Each folder has domain (what is learned on) · experiments (with the paper's settings) · table and plots (our figures
beside the paper's). registry has all of them by name, and those of other packages; run trains methods into a run's
folder, side by side, and evaluates what is there; fit does so for a domain and a method of one's own.
"""
