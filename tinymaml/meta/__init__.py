"""Meta-learning on the autodiff: arguments (a loss, its parameters, which of them are adapted and how) · maml (adaptation
and the explicit meta-gradient, one Hessian-vector product a step).
"""
