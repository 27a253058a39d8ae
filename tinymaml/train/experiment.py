"""An experiment: a domain, the methods that learn on it, each with its settings there, and the loop's settings."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinymaml.settings import Settings
from tinymaml.train.domain import Domain
from tinymaml.train.plots import PICTURES, Picture
from tinymaml.train.report import table as generic_table
from tinymaml.train.results import Results
from tinymaml.train.trainer import Trainer
from tinymaml.train.training import Loop


@dataclass(frozen=True)
class Experiment:
    """What the command line trains by name.

    Args:
        name: its name, that of its domain if it is not given.
        domain: what is learned on.
        methods: by name, with their settings; those of the domain, if not given.
        training: the loop's settings; those of the domain, if not given.
        summary: a line of help.
        fixed: settings of the domain that belong to the experiment: they are no options.
        table: text from results; pictures: by name.
        shows: what `tinymaml show` draws of it: "task" of images, "policy" of reinforcement learning.
        general: whether it is for any data, so that its runs are called after them.
        needs: modules of extras that it cannot do without: (module, extra).
    """

    domain: Domain
    name: str = ""
    methods: Mapping[str, Settings] = field(default_factory=dict)
    training: Loop = None  # type: ignore[assignment]  # it is taken from the domain
    summary: str = ""
    fixed: frozenset[str] = frozenset()
    table: Callable[[Results], str] = generic_table
    pictures: Mapping[str, Picture] = field(default_factory=lambda: PICTURES)
    shows: str | None = None
    general: bool = False
    needs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, value in (
            ("name", self.name or self.domain.name),
            ("methods", dict(self.methods or self.domain.METHODS)),
            ("training", self.domain.TRAINING if self.training is None else self.training),
        ):
            object.__setattr__(self, name, value)

    def trainer(self, method: str) -> Trainer:
        """Of one of the methods, by name. Raises ValueError: there is none of this name, or it does not go with the
        domain."""
        for one, other in itertools.combinations(self.parts(method), 2):
            for name in sorted(one.names() & other.names()):
                raise ValueError(
                    f"{type(one).__name__} and {type(other).__name__} both have a setting {name!r}: "
                    "give it another name in one of them"
                )
        return self.domain.trainer(self.method(method), self.training, self.name, method)

    def method(self, name: str) -> Settings:
        """A method with its settings here. Raises ValueError: there is none of this name."""
        if name not in self.methods:
            raise ValueError(f"{self.name} has no method {name!r}{nearest(name, self.methods)}")
        return self.methods[name]

    def settings(self, method: str | None = None) -> dict[str, Any]:
        """All settings with a method, or with all of them."""
        values: dict[str, Any] = {}
        for part in self.parts(method):
            values |= part.as_dict()
        return values

    def parts(self, method: str | None = None) -> list[Settings]:
        """What has the settings: a method, or all of them, the domain, the loop."""
        return [*(self.methods.values() if method is None else [self.method(method)]), self.domain, self.training]

    def replaced(self, **changes: Any) -> Experiment:
        """With other settings, of the domain, the loop, and of every method that has them.

        Raises:
            ValueError: a setting that there is not, or out of its range.
        """
        known = {name for part in self.parts() for name in part.names()}
        for name in changes:
            if name not in known:
                raise ValueError(f"{self.name} has no setting {name!r}{nearest(name, known)}")
        return self._each(
            lambda part: dataclasses.replace(part, **{name: changes[name] for name in part.names() & changes.keys()})
        )

    def of(self, values: Mapping[str, Any], **others: Any) -> Experiment:
        """With the settings that a run was trained with, as its checkpoints hold them, and others in place of some.

        Raises ValueError: one is of a wrong type, or out of bounds.
        """

        def part(settings: Settings) -> Any:
            given = {name: value for name, value in others.items() if name in settings.names()}
            return type(settings).from_dict({**settings.as_dict(), **values}, **given)

        return self._each(part)

    def _each(self, changed: Callable[[Any], Any]) -> Experiment:
        methods = {name: changed(method) for name, method in self.methods.items()}
        return dataclasses.replace(self, domain=changed(self.domain), training=changed(self.training), methods=methods)


def nearest(name: str, known: Any) -> str:
    """The names nearest to one that there is not, for the end of a message."""
    close = difflib.get_close_matches(name, list(known), 3, 0.5)
    return f": did you mean {' or '.join(close)}?" if close else f"; there are {', '.join(sorted(known))}"
