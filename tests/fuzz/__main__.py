"""Attacks with a seed and a budget: `python -m tests.fuzz programs|kills|files [--seed N] [--count N] [--seconds S]`.

It prints how many cases ran and what failed; the exit status is 1 if anything did.
"""

import argparse
import importlib
import sys

COUNTS = {"programs": 10_000, "kills": 1_000, "files": 100_000}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("attack", choices=COUNTS)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--count", type=int, metavar="N", help="cases (default: 10 000 programs, 1 000 kills, 100 000 files)"
    )
    parser.add_argument("--seconds", type=float, default=600, metavar="S", help="at most (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="of programs; gpu is the stand-in (default: cpu)")
    args = parser.parse_args()
    options = {"device": args.device} if args.device else {}
    run = importlib.import_module(f"tests.fuzz.{args.attack}").run
    done, failures = run(args.seed, args.count or COUNTS[args.attack], args.seconds, **options)
    for failure in failures:
        print(failure)
    print(f"{args.attack}: {done} cases of seed {args.seed}, {len(failures)} failed")
    sys.exit(bool(failures))
