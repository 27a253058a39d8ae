"""The command line of the bench."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.implementations import NAMES
from bench.workloads import WORKLOADS, Images

PARTS = ("frameworks", "hvp", "kernels", "scaling", "memory", "sampler")
IMAGES = [name for name, w in WORKLOADS.items() if isinstance(w, Images)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time tinymaml beside JAX and PyTorch.",
        epilog="On a GPU: python -m bench gpu --help. To draw a file of --json again: python -m bench picture --help",
    )
    parser.add_argument("part", nargs="?", choices=["all", *PARTS], default="all")
    parser.add_argument("--rounds", type=_count, help="interleaved rounds (default: 10; scaling 5)")
    parser.add_argument("--workloads", type=_some(WORKLOADS), help="with commas; kernels has those with images")
    parser.add_argument(
        "--peers",
        type=_some(NAMES),
        help=f"frameworks: those beside tinymaml, with commas: {', '.join(NAMES)}; "
        "jax and torch stand for their usual ones on a workload (default: all usual ones)",
    )
    parser.add_argument("--orders", type=_orders, default=[2, 1], help="frameworks: of the gradient (default: 2,1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, with machine and versions")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw what frameworks found")
    args = parser.parse_args(arguments)
    if args.part == "kernels" and args.workloads and not set(args.workloads) <= set(IMAGES):
        parser.error(f"kernels: the workloads with images are {', '.join(IMAGES)}")
    if args.picture and args.part not in ("all", "frameworks"):
        parser.error("--picture draws the part frameworks")
    return args


def parse_gpu(arguments: Sequence[str]) -> argparse.Namespace:
    """Of `python -m bench gpu`."""
    from bench.gpu.run import PARTS

    parser = argparse.ArgumentParser(prog="python -m bench gpu", description="All that only a GPU can tell.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where tables, figures and runs go")
    parser.add_argument("--parts", type=_some(PARTS), default=list(PARTS), help=f"with commas: {', '.join(PARTS)}")
    parser.add_argument(
        "--workloads", type=_some(WORKLOADS), default=["W1", "W2a", "W2b", "W3", "W4"], help="with commas"
    )
    parser.add_argument("--rounds", type=_count, default=10, help="interleaved rounds of frameworks (default: 10)")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together (default: 9.5)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="training: packed by `python -m bench pack-omniglot`"
    )
    return parser.parse_args(arguments)


def parse_picture(arguments: Sequence[str]) -> argparse.Namespace:
    """Of `python -m bench picture`."""
    parser = argparse.ArgumentParser(prog="python -m bench picture", description="Draw what frameworks found.")
    parser.add_argument("results", type=Path, metavar="FILE.json", help="written by --json, or by the part gpu")
    parser.add_argument("picture", type=Path, metavar="FILE.png", help="or .pdf, .svg")
    return parser.parse_args(arguments)


def parse_pack(arguments: Sequence[str]) -> argparse.Namespace:
    """Of `python -m bench pack-omniglot`."""
    from tinymaml.tasks.imageset import default_path

    parser = argparse.ArgumentParser(prog="python -m bench pack-omniglot", description="Omniglot as a small file.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--from", dest="prepared", type=Path, default=default_path("omniglot"), metavar="FILE.h5")
    return parser.parse_args(arguments)


def _some(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """A parser of names with commas between them."""

    def parsed(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return names

    return parsed


def _orders(text: str) -> list[int]:
    return [int(order) for order in _some(["2", "1"])(text)]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number >= 1")
    return int(text)
