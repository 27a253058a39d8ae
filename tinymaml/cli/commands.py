"""What the commands on experiments do: train, evaluate, plot, show, compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tinymaml import __version__
from tinymaml.cli.options import as_arguments, check_given, chosen_methods, folder, given
from tinymaml.train.experiment import Experiment
from tinymaml.train.files import naming

# What commands need: (module, extra).
RUNS = (("h5py", "train"),)
PICTURES = (("matplotlib", "train"),)


def train(args: argparse.Namespace, experiment: Experiment) -> None:
    """Train one method, or several side by side, then evaluate and draw; once for each seed."""
    from tinymaml.experiments import run
    from tinymaml.tasks import extras

    prepare(args)
    values = given(args, experiment)
    check_given(values, experiment, chosen_methods(args, experiment))
    if args.seeds is not None and "seed" in values:
        raise ValueError("--seed and --seeds: give one of them")
    asked = experiment.replaced(**values)
    pictures = args.evaluate and not args.json_progress
    out = folder(args, asked)
    if args.seeds is None:
        run.check_training(asked, out, experiment)
    extras.require_all([*RUNS, *experiment.needs, *_bars(), *(PICTURES if pictures else ())])
    if args.stop_with_input:
        run.stop_with_input()
    if args.seeds is None:
        _train_one(args, experiment, asked, values, out)
        return
    folders = [out / f"seed-{seed}" for seed in args.seeds]
    for seed, place in zip(args.seeds, folders, strict=True):
        run.check_training(asked, place, experiment)
        _train_one(args, experiment, asked.replaced(seed=seed), {**values, "seed": seed}, place)
    if args.evaluate and not args.json_progress:
        from tinymaml.train import compare, results

        say(compare.seeds_table([results.load(place / "results.json", experiment.name) for place in folders]))


def _train_one(
    args: argparse.Namespace, experiment: Experiment, asked: Experiment, values: dict[str, Any], out: Path
) -> None:
    from tinymaml.experiments import run

    methods = chosen_methods(args, experiment)
    if args.json_progress:
        for method in methods:
            run.train(asked, out, method, experiment, print_json)
        return
    say(_first_screen(args, experiment, asked, methods, out))
    if len(methods) > 1:
        options = {method: as_arguments(experiment, values, method) for method in methods}
        run.train_side_by_side(asked, out, options, args.jobs, getattr(args, "import_module", None))
    else:
        run.train(asked, out, methods[0], experiment, announce=say)
    if args.evaluate:
        say(experiment.table(run.evaluate(asked, out, methods, {})))
        _draw(out, experiment, args.format)


def prepare(args: argparse.Namespace) -> None:
    """Import the module that registers environments, if one was named."""
    if getattr(args, "import_module", None):
        from tinymaml.rl.vector_env import import_environments

        import_environments(args.import_module)


def _first_screen(
    args: argparse.Namespace, experiment: Experiment, asked: Experiment, methods: list[str], out: Path
) -> str:
    """What is trained, into which folder, with which settings: those that are not the defaults, or all."""
    from tinymaml.train.metrics import tensorboard_is_written

    lines = [
        f"tinymaml {__version__}: {experiment.name}, {experiment.summary or asked.domain.name}",
        f"  method        {', '.join(methods)}",
        f"  iterations    {asked.training.iterations:,}".replace(",", " "),
        f"  folder        {out}: checkpoints, metrics, results and pictures",
        "  to stop       Ctrl-C, after which the same command goes on from there",
    ]
    defaults = experiment.settings()
    settings = {name: value for name, value in asked.settings().items() if args.verbose or value != defaults[name]}
    settings.pop("order", None)
    if args.verbose and tensorboard_is_written():
        lines.append(f"  TensorBoard   tensorboard --logdir {out}")
    if settings:
        lines.append("  settings" + ("" if args.verbose else " that are not the defaults (-v shows all)"))
        lines += [f"    {name:16} {_words(value)}" for name, value in sorted(settings.items())]
    elif not args.verbose:
        lines.append("  settings      the defaults (-v shows them)")
    return "\n".join(lines)


def evaluate(args: argparse.Namespace, experiment: Experiment) -> None:
    """Evaluate what was trained in a run's folder again."""
    from tinymaml.experiments import run
    from tinymaml.tasks import extras

    prepare(args)
    extras.require_all([*RUNS, *experiment.needs, *_bars()])
    out = folder(args, experiment)
    methods, whichever = chosen_methods(args, experiment), args.method is None or "all" in args.method
    if whichever:
        methods = [method for method in methods if (out / method / "checkpoints").is_dir()]
        if not methods:
            raise FileNotFoundError(f"{out} has no trained method: tinymaml train {args.experiment} --out {out}")
    protocol = given(args, experiment)
    if not whichever:
        check_given(protocol, experiment, methods)
    say(experiment.table(run.evaluate(experiment, out, methods, protocol)))


def plot(args: argparse.Namespace, experiment: Experiment) -> None:
    """Draw the pictures of a run."""
    _draw(folder(args, experiment), experiment, args.format)


def compare_runs(args: argparse.Namespace) -> None:
    """Runs side by side in one table and one picture."""
    from tinymaml.tasks import extras
    from tinymaml.train.compare import compare

    extras.require_all(PICTURES)
    picture = args.picture or Path(f"comparison.{args.format}")
    say(compare(args.runs, picture))
    say(f"\nPicture: {picture}")


def show(args: argparse.Namespace, experiment: Experiment) -> None:
    """Draw a task, or a policy."""
    prepare(args)
    if experiment.shows == "policy":
        from tinymaml.experiments.control import show as policy

        picture = args.picture or args.run / "policy.gif"
        say(str(policy.draw(experiment, args.run, args.method, args.goal, args.steps, args.seed, picture)))
        return
    from tinymaml.experiments.few_shot import show as images
    from tinymaml.tasks import extras

    if not 0 <= args.task < 2**63:
        raise ValueError(f"task must be in [0, {2**63 - 1}], got {args.task}")
    extras.require_all(PICTURES)
    asked = experiment.replaced(**given(args, experiment))
    domain: Any = asked.domain
    support, query = domain.episodes(asked.training.seed, args.split, args.task, 1, asked.training.dtype)
    title = f"{experiment.name}: task {args.task} of the {args.split} classes"
    say(str(images.draw(folder(args, experiment) / f"{args.split}-task-{args.task}.png", support, query, title)))


def _draw(out: Path, experiment: Experiment, form: str) -> None:
    from tinymaml.train import plots

    paths = plots.draw_all(out, experiment.name, experiment.pictures, form)
    say("\n".join(["", "Pictures:", *[f"  {path}" for path in paths]]))


def _bars() -> list[tuple[str, str]]:
    """What progress needs here."""
    return [("tqdm", "train")] if sys.stderr.isatty() else []


def print_json(**line: float) -> None:
    """A line of progress."""
    from tinymaml.train.metrics import as_json

    say(as_json(**line))


def say(text: str) -> None:
    """Print at once; an error says that it is about standard output."""
    with naming("standard output"):
        print(text, flush=True)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
