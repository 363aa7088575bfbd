"""Planting bugs: other text in a function of the product, another statement, another value; all of it taken back."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Where names may be bound to what is replaced.
_PACKAGES: Final = ("dag", "metastore", "scheduler", "executors", "worker", "api", "tests.simulation")
_FLAGS: Final = __future__.annotations.compiler_flag
_NOTHING: Final = object()


class OutOfDate(Exception):
    """The text that a bug replaces is not there: the product has changed, and the bug has to follow."""


class Planter:
    """Changes the product, and remembers how it was."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def rewrite(self, place: str, *changes: tuple[str, str], **names: Any) -> None:
        """Have the function at *place* (``module:name`` or ``module:Class.name``) read with *changes* in its text.

        The new text may use *names* besides those of its module.
        """
        module_name, _, path = place.partition(":")
        module = import_module(module_name)
        owner: Any = module
        *outer, name = path.split(".")
        for each in outer:
            owner = getattr(owner, each)
        old = inspect.getattr_static(owner, name)
        function: Any = old.fget if isinstance(old, property) else old
        text = textwrap.dedent(inspect.getsource(function))
        for before, after in changes:
            if text.count(before) != 1:
                raise OutOfDate(f"{place} has {text.count(before)} times {before!r}")
            text = text.replace(before, after)
        for new, value in names.items():
            self._set(module, new, value)
        found: dict[str, Any] = {}
        # The module's own names, and the text of a catalogue of this repository.
        exec(compile(text, f"<{place}>", "exec", flags=_FLAGS), vars(module), found)  # noqa: S102
        self._put(owner, name, old, found[name])

    def replace(self, place: str, value: Any) -> None:
        """Bind the name at *place* to *value*, everywhere."""
        module_name, _, name = place.partition(":")
        module = import_module(module_name)
        self._put(module, name, getattr(module, name), value)

    def wrap(self, place: str, wrapper: Callable[[Any], Any]) -> None:
        """Bind the method or function at *place* to what *wrapper* makes of it."""
        module_name, _, path = place.partition(":")
        owner: Any = import_module(module_name)
        *outer, name = path.split(".")
        for each in outer:
            owner = getattr(owner, each)
        old = inspect.getattr_static(owner, name)
        self._put(owner, name, old, wrapper(old))

    def _put(self, owner: Any, name: str, old: Any, new: Any) -> None:
        self._set(owner, name, new)
        if inspect.isclass(owner) or isinstance(old, str | int | float | bool):
            return
        for module_name, module in list(sys.modules.items()):
            if not module_name.startswith(_PACKAGES) or module is None:
                continue
            for other, value in list(vars(module).items()):
                if value is old:
                    self._set(module, other, new)

    def _set(self, owner: Any, name: str, new: Any) -> None:
        self._before.append((owner, name, inspect.getattr_static(owner, name, _NOTHING)))
        setattr(owner, name, new)

    def take_back(self) -> None:
        for owner, name, value in reversed(self._before):
            if value is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        self._before.clear()


@contextmanager
def planted(plant: Callable[[Planter], None]) -> Iterator[None]:
    """Have a bug in the product until the block ends."""
    planter = Planter()
    try:
        plant(planter)
        yield
    finally:
        planter.take_back()
