from __future__ import annotations

import argparse
import os

# Before NumPy is imported: one BLAS thread, as these products are small and its own threading only slows them down.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time tinymaml beside JAX and PyTorch.")
    parser.add_argument("part", nargs="?", choices=["all", "metastep", "hvp"], default="all")
    parser.add_argument("--rounds", type=int, default=200, help="interleaved rounds (default: %(default)s)")
    args = parser.parse_args()

    from bench import hvp, metastep
    from bench.timing import machine

    print(machine())
    if args.part in ("all", "metastep"):
        metastep.run(args.rounds)
    if args.part in ("all", "hvp"):
        hvp.run(args.rounds)


main()
