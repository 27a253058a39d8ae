"""The command line: `tinymaml train|evaluate|plot|doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinymaml import __version__

EXPERIMENTS = ("sinusoid",)


def _fields(settings: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(settings)
    return [(field, hints[field.name]) for field in dataclasses.fields(settings)]


def _add_settings(parser: argparse.ArgumentParser, settings: type[Any], names: Sequence[str] | None = None) -> None:
    """An option for every field of a dataclass of settings, or for those named."""
    group = parser.add_argument_group("settings")
    for field, hint in _fields(settings):
        if names is not None and field.name not in names:
            continue
        option = "--" + field.name.replace("_", "-")
        text = f"{field.metadata['help']} (default: %(default)s)"
        common: dict[str, Any] = {"default": field.default, "help": text}
        if hint is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, **common)
            continue
        kind = typing.get_args(hint)[0] if typing.get_args(hint) else hint
        if typing.get_origin(hint) is tuple:
            common |= {"nargs": "+", "metavar": "N"}
        elif typing.get_origin(hint) is types.UnionType or kind in (int, float):
            common |= {"metavar": "N"}
        group.add_argument(option, type=kind, choices=field.metadata["choices"], **common)


def _settings(settings: type[Any], args: argparse.Namespace) -> Any:
    values = {field.name: getattr(args, field.name) for field, _ in _fields(settings)}
    return settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _parser() -> argparse.ArgumentParser:
    from tinymaml.train.settings import SinusoidSettings
    from tinymaml.train.sinusoid import METHODS

    parser = argparse.ArgumentParser(
        prog="tinymaml", description="Model-agnostic meta-learning: the paper's experiments."
    )
    parser.add_argument("--version", action="version", version=f"tinymaml {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train, evaluate, and show the figures beside the paper's",
        description="Train an experiment. The same command goes on with a run that was stopped or killed.",
    )
    evaluate = commands.add_parser("evaluate", help="evaluate the checkpoints of a run again")
    plot = commands.add_parser("plot", help="draw the pictures of a run from its results.json")
    commands.add_parser("doctor", help="print versions, devices, and which extras are there")
    for command in (train, evaluate, plot):
        command.add_argument("experiment", choices=EXPERIMENTS)
        command.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/EXPERIMENT)")
    for command in (train, evaluate):
        command.add_argument(
            "--method",
            choices=(*METHODS, "all"),
            default="maml" if command is train else "all",
            help="(default: %(default)s)",
        )
    _add_settings(train, SinusoidSettings)
    _add_settings(evaluate, SinusoidSettings, SinusoidSettings.EVALUATION)
    train.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="methods trained at a time (default: %(default)s, the cores)",
    )
    train.add_argument(
        "--evaluate", action=argparse.BooleanOptionalAction, default=True, help="evaluate after training"
    )
    train.add_argument("--json-progress", action="store_true", help="print progress as JSON lines")
    return parser


def _train(args: argparse.Namespace) -> None:
    from tinymaml.train import run
    from tinymaml.train.settings import SinusoidSettings
    from tinymaml.train.sinusoid import METHODS

    settings = _settings(SinusoidSettings, args)
    if args.json_progress:
        run.train(args.out, args.method, settings, _print_json)
        return
    _print_settings(args, settings)
    if args.method == "all":
        run.train_side_by_side(args.out, METHODS, settings, _setting_options(SinusoidSettings, settings), args.jobs)
    else:
        run.train(args.out, args.method, settings)
    if args.evaluate:
        _evaluate(args)
        _plot(args)


def _evaluate(args: argparse.Namespace) -> None:
    from tinymaml.train import results, run
    from tinymaml.train.settings import SinusoidSettings
    from tinymaml.train.sinusoid import METHODS

    methods: tuple[str, ...] = METHODS if args.method == "all" else (args.method,)
    if args.command == "evaluate" and args.method == "all":
        methods = tuple(m for m in METHODS if (args.out / m / "checkpoints").is_dir())
        if not methods:
            raise FileNotFoundError(
                f"{args.out} has no trained method: tinymaml train {args.experiment} --out {args.out}"
            )
    protocol = {name: getattr(args, name) for name in SinusoidSettings.EVALUATION}
    print(results.table(run.evaluate(args.out, methods, protocol)))


def _plot(args: argparse.Namespace) -> None:
    from tinymaml.train import plots

    print("\nPictures:")
    for path in plots.draw_all(args.out):
        print(f"  {path}")


def _print_settings(args: argparse.Namespace, settings: Any) -> None:
    print(f"tinymaml {__version__}: {args.experiment}, method {args.method}, into {args.out}")
    for name, value in settings.as_dict().items():
        print(f"  {name:16} {value}")
    from tinymaml.train.metrics import tensorboard_writer

    print(
        f"  TensorBoard      {'also written' if tensorboard_writer() else 'not written: tensorboardX is not installed'}"
    )
    sys.stdout.flush()


def _print_json(iteration: int, loss: float, seconds: float) -> None:
    print(json.dumps({"iteration": iteration, "loss": loss, "seconds": seconds}), flush=True)


def _setting_options(kind: type[Any], settings: Any) -> list[str]:
    """The settings as options, to hand on to a process of its own."""
    options: list[str] = []
    for field, hint in _fields(kind):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if hint is bool:
            options.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            options += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for an error (a line on standard error says which), 130 if interrupted."""
    args = _parser().parse_args(argv)
    from tinymaml.train.checkpoint import CheckpointError
    from tinymaml.train.loop import Interrupted, TrainingDiverged
    from tinymaml.train.run import INTERRUPTED

    if getattr(args, "out", "") is None:
        args.out = Path("runs") / args.experiment
    try:
        if args.command == "doctor":
            from tinymaml import doctor

            print(doctor.report())
        elif args.command == "train":
            _train(args)
        elif args.command == "evaluate":
            _evaluate(args)
        else:
            _plot(args)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"tinymaml: {str(stop) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, RuntimeError, CheckpointError, TrainingDiverged) as error:
        print(f"tinymaml: {error}", file=sys.stderr)
        return 1
    return 0
