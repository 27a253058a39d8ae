"""Benchmarks: `python -m bench [frameworks|hvp|kernels|scaling|memory|sampler]`, all of them without an argument.

Read in this order: workloads · ours, ours_products, peers/ (each workload in each framework) · implementations (how
each is started) · worker, timing, metastep, machine, footprint (what is measured, and how) · parts/ · output ·
picture · gpu/.
"""
