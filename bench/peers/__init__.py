"""The workloads in other frameworks, each imported only in a process of its own: jax · torch · torch_libraries
(learn2learn, higher, TorchOpt).

A maker `maker(workload, params, support, query, order)` gives (the meta-gradient, a whole meta-step); how each is
started is in `bench.implementations`.
"""
