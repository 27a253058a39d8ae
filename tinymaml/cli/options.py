"""Settings as options of the command line, and back."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.settings import Settings, kind_of
from tinymaml.train.experiment import Experiment

ORDERS = {1: "fomaml", 2: "maml"}


class Option(NamedTuple):
    """A setting that is an option."""

    name: str
    hint: Any
    metadata: Any
    default: Any

    @property
    def flag(self) -> str:
        """As it is written."""
        return "--" + self.name.replace("_", "-")


def options_of(part: Settings, hidden: frozenset[str] = frozenset()) -> Iterator[Option]:
    """The options of a part of an experiment."""
    hints = part.hints()
    for field in dataclasses.fields(part):
        if field.name not in hidden:
            yield Option(field.name, hints[field.name], field.metadata, getattr(part, field.name))


def groups(experiment: Experiment) -> list[tuple[str, list[Option]]]:
    """An experiment's options by what they are of: training, the domain, the methods; each of them once."""
    hidden = experiment.fixed | {"order"}  # of the meta-gradient: a method of its own
    parts: list[tuple[str, Settings]] = [("training", experiment.training), (experiment.domain.name, experiment.domain)]
    parts += list(experiment.methods.items())
    seen: dict[str, list[str]] = {}
    for name, part in parts:
        for option in options_of(part, hidden):
            seen.setdefault(option.name, []).append(name)
    titled: dict[str, list[Option]] = {}
    for name, part in parts:
        for option in options_of(part, hidden):
            owners = seen[option.name]
            if owners[0] == name:
                title = "of the methods" if owners == list(experiment.methods) else f"of {', '.join(owners)}"
                titled.setdefault(title, []).append(option)
    return list(titled.items())


def add_settings(
    parser: argparse.ArgumentParser, experiment: Experiment, only: Callable[[Option], bool] | None = None
) -> None:
    """An option for every setting, or for those of the evaluation, which else are as they were in training."""
    for title, options in groups(experiment):
        chosen = [option for option in options if only is None or only(option)]
        if chosen:
            group = parser.add_argument_group(f"settings {title}")
            for option in chosen:
                _add(
                    group,
                    option,
                    f"(default: {_words(option.default)})" if only is None else "(default: as in training)",
                )


def is_of_evaluation(option: Option) -> bool:
    """Whether an evaluation reads it."""
    return bool(option.metadata.get("evaluation", False))


def given(args: argparse.Namespace, experiment: Experiment) -> dict[str, Any]:
    """The settings among the arguments."""
    names = {name for part in experiment.parts() for name in part.names()} - experiment.fixed - {"order"}
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def check_given(values: dict[str, Any], experiment: Experiment, methods: list[str]) -> None:
    """Raises ValueError for a setting that was given and that none of the methods reads."""
    known = {name for method in methods for part in experiment.parts(method) for name in part.names()}
    for name in values:
        if name not in known:
            having = [key for key, part in experiment.methods.items() if name in part.names()]
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is no setting of {', '.join(methods)}, but of {', '.join(having)}")


def as_arguments(experiment: Experiment, values: dict[str, Any], method: str) -> list[str]:
    """Settings as options, to hand on to a process of its own: those that a method reads."""
    arguments: list[str] = []
    for part in experiment.parts(method):
        for option in options_of(part):
            value = values.get(option.name)
            if option.name not in values or value is None:
                continue
            if option.hint is bool:
                arguments.append(option.flag if value else option.flag.replace("--", "--no-", 1))
            else:
                arguments += [option.flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return arguments


def add_out(parser: argparse.ArgumentParser, experiment: Experiment, training: bool = False) -> None:
    """The folder of a run; see `folder`."""
    name = "NAME, after what is trained" if experiment.general else experiment.name
    default = f" (default: runs/{name})" if training or not experiment.general else ""
    parser.add_argument("--out", type=Path, required=not default, metavar="DIR", help=f"folder of the run{default}")


def folder(args: argparse.Namespace, experiment: Experiment) -> Path:
    """The folder of a run: the one that was given, else runs/NAME."""
    if args.out is not None:
        out: Path = args.out
        return out
    return Path("runs") / (experiment.domain.folder_name if experiment.general else experiment.name)


def add_method(parser: argparse.ArgumentParser, experiment: Experiment, default: str) -> None:
    """Some of the experiment's, or "all"; pretrain is another name of pretrained; an order is a name of MAML's."""
    group: Any = parser
    if set(ORDERS.values()) <= set(experiment.methods):
        group = parser.add_mutually_exclusive_group()
        group.add_argument(
            "--order",
            dest="method",
            type=_method_of_order,
            nargs=1,
            metavar="{1,2}",
            default=argparse.SUPPRESS,
            help="of MAML's meta-gradient: --order 1 is short for --method fomaml, 2 for maml",
        )
    group.add_argument(
        "--method",
        type=lambda name: "pretrained" if name == "pretrain" else name,
        nargs="+",
        choices=(*experiment.methods, "all"),
        metavar="NAME",
        default=None,  # `chosen_methods` puts the default in: argparse takes one that is given for none that is
        help=f"one or several of {', '.join(experiment.methods)}; or all (default: {default})",
    )
    parser.set_defaults(default_method=default)


def chosen_methods(args: argparse.Namespace, experiment: Experiment) -> list[str]:
    """The methods that were given, or the default."""
    given: list[str] = args.method or [args.default_method]
    return list(experiment.methods) if "all" in given else list(dict.fromkeys(given))


def _method_of_order(text: str) -> str:
    """MAML's name of an order of the meta-gradient."""
    if text not in ("1", "2"):
        raise argparse.ArgumentTypeError(f"the order is 1 or 2, got {text!r}")
    return ORDERS[int(text)]


def _add(group: Any, option: Option, said: str) -> None:
    text = str(option.metadata.get("help", "")).replace("%", "%%")
    common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{text} {said}".strip()}
    choices = option.metadata.get("choices")
    if option.hint is bool:
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, **common)
        return
    kind = kind_of(option.hint)
    if typing.get_origin(option.hint) is tuple:
        common |= {"nargs": "+", "metavar": "TEXT" if kind is str else "N"}
    elif kind in (int, float):
        common |= {"metavar": "N"}
    elif choices is None:
        common |= {"metavar": "TEXT"}
    group.add_argument(option.flag, type=kind, choices=choices, **common)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value).replace("%", "%%")
