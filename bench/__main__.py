from __future__ import annotations

import os
import sys

# Before NumPy is imported: one BLAS thread, as these products are small and its own threading only slows them down.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> int:
    part, rest = sys.argv[1:2], sys.argv[2:]
    if part == ["gpu"]:
        from bench.arguments import parse_gpu
        from bench.gpu.run import run

        args = parse_gpu(rest)
        return run(args.out, args.parts, args.workloads, args.rounds, args.data, args.minutes)
    if part == ["picture"]:
        from bench.arguments import parse_picture
        from bench.output import read_json
        from bench.picture import draw

        args = parse_picture(rest)
        draw(args.picture, *read_json(args.results))
        return 0
    if part == ["pack-omniglot"]:
        from bench.arguments import parse_pack
        from bench.gpu import packed

        args = parse_pack(rest)
        packed.pack(args.prepared, args.out)
        return 0
    return _main()


def _main() -> int:
    from bench.arguments import IMAGES, PARTS, parse
    from bench.machine import describe
    from bench.output import write_json
    from bench.parts import frameworks, hvp, kernels, sampler, scaling
    from bench.picture import draw
    from bench.workloads import WORKLOADS

    args = parse()
    machine = describe()
    versions = ", ".join([f"{name} {version or 'not installed'}" for name, version in machine["versions"].items()])
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {versions}")
    asked = args.workloads
    parts = {
        "frameworks": lambda: frameworks.run(args.rounds or 10, asked or list(WORKLOADS), args.peers, args.orders),
        "hvp": lambda: hvp.run(args.rounds or 10),
        "kernels": lambda: kernels.run(args.rounds or 10, [w for w in asked or ["W2b", "W4"] if w in IMAGES]),
        "scaling": lambda: scaling.run(args.rounds or 5, asked or ["W1", "W2a"]),
        "memory": lambda: scaling.run_memory(asked or ["W2a"]),
        "sampler": lambda: sampler.run(args.rounds or 10),
    }
    rows = []
    for part in PARTS if args.part == "all" else [args.part]:
        rows += parts[part]()
        if args.json:  # after each part: what is measured is not lost with a later one
            write_json(args.json, machine, rows)
    if args.picture:
        draw(args.picture, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
