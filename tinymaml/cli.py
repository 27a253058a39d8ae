"""The command line: `tinymaml train|evaluate|plot|show|data|doctor`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shlex
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinymaml import __version__
from tinymaml.command import INTERRUPTED, begun
from tinymaml.experiments.registry import EXPERIMENTS, Experiment
from tinymaml.train import data
from tinymaml.train.files import naming
from tinymaml.train.settings import Settings, hints_of, kind_of

NOBODY_READS = 141  # the exit status of a process that wrote into a pipe without a reader, as the shell has it
_ORDERS = {1: "fomaml", 2: "maml"}


def _fields(settings: Settings) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields that are options, and their types."""
    hints = hints_of(type(settings))
    fields = dataclasses.fields(settings)
    return [(field, hints[field.name]) for field in fields if not field.metadata["fixed"]]


def _add_settings(parser: argparse.ArgumentParser, defaults: Settings) -> None:
    """An option for every setting."""
    group = parser.add_argument_group("settings")
    for field, hint in _fields(defaults):
        _add_setting(group, field, hint, getattr(defaults, field.name), "(default: %(default)s)")


def _add_protocol(parser: argparse.ArgumentParser, defaults: Settings) -> None:
    """An option for every setting of the evaluation; those not given are as they were in training."""
    group = parser.add_argument_group("settings")
    for field, hint in _fields(defaults):
        if field.name in defaults.EVALUATION:
            _add_setting(group, field, hint, argparse.SUPPRESS, "(default: as in training)")


def _add_setting(
    group: argparse._ArgumentGroup, field: dataclasses.Field[Any], hint: Any, default: Any, said: str
) -> None:
    option = "--" + field.name.replace("_", "-")
    common: dict[str, Any] = {"default": default, "help": f"{field.metadata['help']} {said}"}
    if hint is bool:
        group.add_argument(option, action=argparse.BooleanOptionalAction, **common)
        return
    kind = kind_of(hint)
    if typing.get_origin(hint) is tuple:
        common |= {"nargs": "+", "metavar": "N"}
    elif kind in (int, float):
        common |= {"metavar": "N"}
    elif field.metadata["choices"] is None:
        common |= {"metavar": "TEXT"}
    group.add_argument(option, type=kind, choices=field.metadata["choices"], **common)


def _given(args: argparse.Namespace, defaults: Settings) -> dict[str, Any]:
    """The settings among the arguments."""
    values = {field.name: getattr(args, field.name) for field, _ in _fields(defaults) if hasattr(args, field.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _parser() -> argparse.ArgumentParser:
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
    show = commands.add_parser("show", help="draw a task of an experiment on images, or a policy that was learned")
    data.add_parser(commands)
    commands.add_parser("doctor", help="print versions, devices, and which extras are there")
    for command, add in ((train, _add_train), (evaluate, _add_evaluate), (plot, _add_out), (show, _add_show)):
        names = command.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
        for experiment in EXPERIMENTS.values():
            if command is show and experiment.show is None:
                continue
            add(names.add_parser(experiment.name, help=experiment.summary, description=command.description), experiment)
    return parser


def _add_out(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    out = Path("runs") / experiment.name
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="folder of the run (default: %(default)s)")


def _add_show(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    if experiment.show == "policy":
        _add_show_policy(parser, experiment)
        return
    _add_out(parser, experiment)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train", help="(default: train)")
    parser.add_argument("--task", type=int, default=0, metavar="N", help="which of the split's (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="folder of the prepared file (default: $TINYMAML_DATA or ./data)")


def _add_show_policy(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    run = Path("runs") / experiment.name
    parser.add_argument("--run", type=Path, default=run, metavar="DIR", help="folder of the run (default: %(default)s)")
    parser.add_argument("--method", choices=experiment.code.METHODS, default="maml", help="(default: %(default)s)")
    parser.add_argument(
        "--goal", type=float, nargs="+", metavar="N", help="to adapt to (default: one that is drawn, by --seed)"
    )
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="inner steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="(default: policy.gif in the run's folder)")


def _add_evaluate(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    _add_out(parser, experiment)
    if experiment.by_order:
        parser.add_argument(
            "--order", type=int, choices=_ORDERS, help="of the meta-gradient (default: those that were trained)"
        )
    else:
        _add_method(parser, experiment, "all")
    _add_protocol(parser, experiment.settings)


def _add_method(parser: argparse.ArgumentParser, experiment: Experiment, default: str) -> None:
    """One of the experiment's, or "all"; pretrain is another name of pretrained."""
    parser.add_argument(
        "--method",
        type=lambda name: "pretrained" if name == "pretrain" else name,
        choices=(*experiment.code.METHODS, "all"),
        default=default,
        help="(default: %(default)s)",
    )


def _add_train(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    _add_out(parser, experiment)
    if experiment.by_order:
        text = "of the meta-gradient: 1 is first-order MAML; a run has room for both (default: %(default)s)"
        parser.add_argument("--order", type=int, choices=_ORDERS, default=2, help=text)
    else:
        _add_method(parser, experiment, "maml")
        parser.add_argument(
            "--jobs",
            type=int,
            default=os.cpu_count() or 1,
            metavar="N",
            help="methods trained at a time (default: %(default)s, the cores)",
        )
    _add_settings(parser, experiment.settings)
    parser.add_argument(
        "--evaluate", action=argparse.BooleanOptionalAction, default=True, help="evaluate after training"
    )
    parser.add_argument("--json-progress", action="store_true", help="print progress as JSON lines")
    parser.add_argument("--stop-with-input", action="store_true", help=argparse.SUPPRESS)  # see `run.stop_with_input`


def _method(args: argparse.Namespace, experiment: Experiment) -> str:
    """One of the experiment's methods, or "all"."""
    if not experiment.by_order:
        return str(args.method)
    return "all" if args.order is None else _ORDERS[args.order]


def _train(args: argparse.Namespace, experiment: Experiment) -> None:
    from tinymaml.experiments import run
    from tinymaml.train import extras

    method = _method(args, experiment)
    settings = dataclasses.replace(experiment.settings, **_given(args, experiment.settings))
    pictures = args.evaluate and not args.json_progress
    run.check_training(experiment, args.out, settings)
    extras.require_all([*_RUNS, *experiment.needs, *_bars(), *(_PICTURES if pictures else ())])
    if args.stop_with_input:
        run.stop_with_input()
    if args.json_progress:
        run.train(experiment, args.out, method, settings, _print_json)
    else:
        _print_settings(args, method, settings)
        if method == "all":
            options = _setting_options(settings)
            run.train_side_by_side(experiment, args.out, experiment.code.METHODS, settings, options, args.jobs)
        else:
            run.train(experiment, args.out, method, settings)
        if args.evaluate:
            _evaluate(args, experiment)
            _plot(args, experiment)


# What commands need: (module, extra).
_RUNS = (("h5py", "train"),)
_PICTURES = (("matplotlib", "train"),)


def _bars() -> list[tuple[str, str]]:
    """What progress needs here."""
    return [("tqdm", "train")] if sys.stderr.isatty() else []


def _evaluate(args: argparse.Namespace, experiment: Experiment) -> None:
    from tinymaml.experiments import run
    from tinymaml.train import extras

    extras.require_all([*_RUNS, *experiment.needs, *_bars()])
    method = _method(args, experiment)
    methods: tuple[str, ...] = experiment.code.METHODS if method == "all" else (method,)
    if args.command == "evaluate" and method == "all":
        methods = tuple(m for m in methods if (args.out / m / "checkpoints").is_dir())
        if not methods:
            raise FileNotFoundError(
                f"{args.out} has no trained method: tinymaml train {args.experiment} --out {args.out}"
            )
    given = _given(args, experiment.settings)
    protocol = {name: value for name, value in given.items() if name in experiment.settings.EVALUATION}
    _say(experiment.table(run.evaluate(experiment, args.out, methods, protocol)))


def _plot(args: argparse.Namespace, experiment: Experiment) -> None:
    from tinymaml.train import plots

    paths = plots.draw_all(args.out, experiment.name, experiment.pictures)
    _say("\n".join(["", "Pictures:", *[f"  {path}" for path in paths]]))


def _show(args: argparse.Namespace, experiment: Experiment) -> None:
    if experiment.show == "policy":
        from tinymaml.experiments.control import show as rl_show

        picture = args.picture or args.run / "policy.gif"
        _say(str(rl_show.draw(experiment, args.run, args.method, args.goal, args.steps, args.seed, picture)))
        return
    from tinymaml.experiments.few_shot import data as image_data
    from tinymaml.experiments.few_shot import show
    from tinymaml.train import extras

    if not 0 <= args.task < 2**63:
        raise ValueError(f"task must be in [0, {2**63 - 1}], got {args.task}")
    extras.require_all(_PICTURES)
    of_experiment: Any = experiment.settings
    settings = dataclasses.replace(of_experiment, data=args.data)
    images = image_data.read(settings, args.split, settings.query_images)
    support, query = image_data.draw(settings, images, settings.seed, args.task, 1, settings.query_images)
    title = f"{experiment.name}: task {args.task} of the {args.split} classes"
    _say(str(show.draw(args.out / f"{args.split}-task-{args.task}.png", support, query, title)))


def _print_settings(args: argparse.Namespace, method: str, settings: Settings) -> None:
    from tinymaml.train.metrics import tensorboard_is_written

    lines = [f"tinymaml {__version__}: {args.experiment}, method {method}, into {args.out}"]
    lines += [f"  {name:16} {value}" for name, value in settings.as_dict().items()]
    board = "also written" if tensorboard_is_written() else "not written: pip install 'tinymaml[tensorboard]'"
    _say("\n".join([*lines, f"  TensorBoard      {board}"]))


def _print_json(**line: float) -> None:
    from tinymaml.train.metrics import as_json

    _say(as_json(**line))


def _say(text: str) -> None:
    """Print at once; an error says that it is about standard output."""
    with naming("standard output"):
        print(text, flush=True)


def _setting_options(settings: Settings) -> list[str]:
    """The settings as options, to hand on to a process of its own."""
    options: list[str] = []
    for field, hint in _fields(settings):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if hint is bool:
            options.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            options += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return options


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
            args = _parser().parse_args(argv)
            _act(args)
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


def _act(args: argparse.Namespace) -> None:
    if args.command == "doctor":
        from tinymaml import doctor

        _say(doctor.report())
    elif args.command == "data":
        data.run(args)
    else:
        actions = {"train": _train, "evaluate": _evaluate, "plot": _plot, "show": _show}
        actions[args.command](args, EXPERIMENTS[args.experiment])


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
