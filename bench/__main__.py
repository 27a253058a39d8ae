from __future__ import annotations

import argparse
import os

# Before NumPy is imported: one BLAS thread, as these products are small and its own threading only slows them down.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    from bench import hvp, images, kernels, metastep
    from bench.timing import machine

    parser = argparse.ArgumentParser(prog="python -m bench", description="Time tinymaml beside JAX and PyTorch.")
    parser.add_argument("part", nargs="?", choices=["all", "metastep", "hvp", "images", "kernels"], default="all")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: 200; images 20, kernels 10)")
    own = parser.add_argument_group("images and kernels")
    own.add_argument("--workloads", nargs="+", choices=list(images.WORKLOADS), help="some of them")
    own.add_argument(
        "--peers",
        nargs="*",
        choices=["jax", "torch", *images.PEERS],
        help="those beside tinymaml: a framework's usual ones for the workload, or one by name; none: tinymaml alone",
    )
    own.add_argument("--orders", nargs="+", type=int, choices=[1, 2], default=[2, 1], help="of the meta-gradient")
    args = parser.parse_args()

    print(machine())
    if args.part in ("all", "metastep"):
        metastep.run(args.rounds or 200)
    if args.part in ("all", "hvp"):
        hvp.run(args.rounds or 200)
    if args.part in ("all", "images"):
        images.run(args.rounds or 20, args.workloads or list(images.WORKLOADS), args.peers, args.orders)
    if args.part in ("all", "kernels"):
        kernels.run(args.rounds or 10, args.workloads or ["W2b", "W4"])


main()
