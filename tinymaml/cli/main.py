"""The command `tinymaml`: its commands and options, and what errors and interruptions become."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinymaml import __version__
from tinymaml.cli import commands, data
from tinymaml.cli.commands import say
from tinymaml.cli.options import add_method, add_out, add_settings, is_of_evaluation
from tinymaml.command import INTERRUPTED, begun
from tinymaml.experiments import registry
from tinymaml.train.experiment import Experiment, nearest
from tinymaml.train.files import naming

NOBODY_READS = 141  # the exit status of a process that wrote into a pipe without a reader, as the shell has it

_OF_EXPERIMENTS = ("train", "evaluate", "plot", "show")


def _parser(experiments: dict[str, Experiment]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinymaml", description="Model-agnostic meta-learning: the paper's experiments, and your own."
    )
    parser.add_argument("--version", action="version", version=f"tinymaml {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = subparsers.add_parser(
        "train",
        help="train, evaluate, and show the figures beside the paper's",
        description="Train an experiment. The same command goes on with a run that was stopped or killed.",
    )
    evaluate = subparsers.add_parser("evaluate", help="evaluate the checkpoints of a run again")
    plot = subparsers.add_parser("plot", help="draw the pictures of a run from its results.json")
    show = subparsers.add_parser("show", help="draw a task of an experiment on images, or a policy that was learned")
    compare = subparsers.add_parser("compare", help="put runs side by side in one table and one picture")
    _add_compare(compare)
    data.add_parser(subparsers)
    subparsers.add_parser("doctor", help="print versions, devices, and which extras are there")
    for command, add in ((train, _add_train), (evaluate, _add_evaluate), (plot, _add_plot), (show, _add_show)):
        names = command.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
        for experiment in experiments.values():
            if command is show and experiment.shows is None:
                continue
            add(names.add_parser(experiment.name, help=experiment.summary, description=command.description), experiment)
    return parser


def _add_train(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    add_out(parser, experiment, training=True)
    add_method(parser, experiment, next(iter(experiment.methods)))
    _add_import(parser, experiment)
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="methods trained at a time with --method all (default: %(default)s, the cores)",
    )
    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="A-B",
        help="train with each of these seeds, 0-4 or 0,3,7, into folders of their own",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show all settings before training")
    add_settings(parser, experiment)
    parser.add_argument(
        "--evaluate", action=argparse.BooleanOptionalAction, default=True, help="evaluate after training"
    )
    _add_format(parser)
    parser.add_argument("--json-progress", action="store_true", help="print progress as JSON lines")
    parser.add_argument("--stop-with-input", action="store_true", help=argparse.SUPPRESS)  # see `run.stop_with_input`


def _add_evaluate(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    add_out(parser, experiment)
    add_method(parser, experiment, "all")
    _add_import(parser, experiment)
    add_settings(parser, experiment, is_of_evaluation)


def _add_plot(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    add_out(parser, experiment)
    _add_format(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, each with a results.json")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="(default: comparison.png, here)")
    _add_format(parser)


def _add_show(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    if experiment.shows == "policy":
        _add_show_policy(parser, experiment)
        return
    add_out(parser, experiment)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train", help="(default: train)")
    parser.add_argument("--task", type=int, default=0, metavar="N", help="which of the split's (default: %(default)s)")
    add_settings(parser, experiment, lambda option: option.name in ("data", "dataset", "ways", "shots", "query_images"))


def _add_show_policy(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    run = Path("runs") / experiment.name
    parser.add_argument("--run", type=Path, default=run, metavar="DIR", help="folder of the run (default: %(default)s)")
    parser.add_argument("--method", choices=tuple(experiment.methods), default="maml", help="(default: %(default)s)")
    _add_import(parser, experiment)
    parser.add_argument(
        "--goal", type=float, nargs="+", metavar="N", help="to adapt to (default: one that is drawn, by --seed)"
    )
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="inner steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="(default: policy.gif in the run's folder)")


def _add_import(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    """Environments that are no fixed part of the experiment may have to be registered first."""
    if "environment" in experiment.domain.names() - experiment.fixed:
        parser.add_argument(
            "--import",
            dest="import_module",
            metavar="MODULE",
            help="a module that registers the environment when imported",
        )


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="of the pictures (default: %(default)s)"
    )


def _seeds(text: str) -> list[int]:
    """0-4 or 0,3,7."""
    try:
        first, dash, last = text.partition("-")
        seeds = list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"seeds are 0-4 or 0,3,7, got {text!r}")
    return seeds


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for an error (a line on standard error says which), 2 for options that do
    not go together or a device that is not there, 130 if interrupted, 141 if nobody reads what it prints.
    """
    try:
        with begun():
            return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def _main(argv: list[str]) -> int:
    from tinymaml.train.checkpoint import CheckpointError
    from tinymaml.train.devices import DeviceError
    from tinymaml.train.loop import Interrupted, TrainingDiverged

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # "±" on a terminal that has only ASCII, say
    args = argparse.Namespace(command=None)
    try:
        try:
            installed = registry.installed(silent="--stop-with-input" in argv)  # whose parent has said it
            experiments = {**registry.EXPERIMENTS, **registry.GENERAL, **installed}
            parser = _parser(experiments)
            _check_name(parser, argv, experiments)
            args = _parsed(parser, argv)
            _act(args, experiments)
        finally:
            if sys.stdout is not None:  # it is closed
                with naming("standard output"):
                    sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return NOBODY_READS
    except (Interrupted, KeyboardInterrupt) as stop:
        _complain(str(stop) or "interrupted")
        if args.command == "train" and not args.json_progress:
            _complain(shlex.join(["tinymaml", *argv]), "  ")
        return INTERRUPTED
    except DeviceError as error:
        _complain(str(error))
        return 2
    except (
        ValueError, OSError, ImportError, RuntimeError, MemoryError, OverflowError, CheckpointError, TrainingDiverged
    ) as error:  # fmt: skip
        _complain(str(error) or type(error).__name__)
        if isinstance(error, OSError):
            _drop_output()
        return 1
    return 0


def _parsed(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The arguments. Help is printed here: argparse says nothing of output that nobody reads."""
    with contextlib.redirect_stdout(io.StringIO()) as help_text:
        try:
            return parser.parse_args(argv)
        except SystemExit:
            stop = sys.exc_info()[1]
    if help_text.getvalue():
        say(help_text.getvalue().rstrip("\n"))
    assert stop is not None
    raise stop


def _check_name(parser: argparse.ArgumentParser, argv: list[str], experiments: dict[str, Experiment]) -> None:
    """Ends with a line that names the nearest experiments, if there is none of the name that was given."""
    if len(argv) > 1 and argv[0] in _OF_EXPERIMENTS and not argv[1].startswith("-") and argv[1] not in experiments:
        parser.error(f"there is no experiment {argv[1]!r}{nearest(argv[1], experiments)}")


def _act(args: argparse.Namespace, experiments: dict[str, Experiment]) -> None:
    if args.command == "doctor":
        from tinymaml.cli import doctor

        say(doctor.report())
    elif args.command == "data":
        data.run(args)
    elif args.command == "compare":
        commands.compare_runs(args)
    else:
        actions: dict[str, Any] = {
            "train": commands.train,
            "evaluate": commands.evaluate,
            "plot": commands.plot,
            "show": commands.show,
        }
        actions[args.command](args, experiments[args.experiment])


def _complain(text: str, start: str = "tinymaml: ") -> None:
    with contextlib.suppress(OSError):  # nobody reads that either
        print(f"{start}{text}", file=sys.stderr, flush=True)


def _drop_output() -> None:
    """What could not be written is not tried again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nothing, stream.fileno())
