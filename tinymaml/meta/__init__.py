"""Gradient-based adaptation and meta-learning, for supervised and reinforcement learning alike.

Read arguments (what is adapted, on which loss, with which step sizes; finite: checks of values), adaptation (the inner
steps' result phi, and products with their derivative, J u and Jᵀ v, one Hessian-vector product a step), then maml: the
meta-gradient is Jᵀ times the query loss's gradient at phi.
"""
