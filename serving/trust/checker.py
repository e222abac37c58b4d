"""Checkers: each tests a JSON value, describes what it accepts as a JSON schema, and never shows a value.

A checker knows the same in two forms. pydantic-core, which is fast, says only whether a value passes. A
walk through the value in Python says what is wrong with it and where: it comes after a refusal. Large
values are walked through at once, part by part, so that others may run meanwhile.

A checker tests a value without knowing where it stands. Only when something is wrong does the error
collect its path, from the inside out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator

from serving.errors import InvalidFieldError, RequestError
from serving.trust.leftovers import Leftovers
from serving.trust.measure import fits

Test = Callable[[Any], None]
Steps = Callable[[Any, Leftovers], Iterator[None]]
Schema = Mapping[str, Any]

# Values, or elements of a list, that are tested in one step.
STEP_ITEMS = 1024


class WrongValueError(ValueError):
    """A value failed a test; who looked inside adds where. `{path}` in the text becomes its path.

    pydantic-core takes a ValueError for a refusal, so that its functions may raise this one.
    """

    def __init__(self, text: str, error: type[RequestError] = InvalidFieldError) -> None:
        super().__init__(text)
        self._text = text
        self._error = error
        self._places: list[str] = []

    def within(self, place: str) -> WrongValueError:
        """The same, seen from one level further out; `place` is `.name` or `[3]`."""
        self._places.append(place)
        return self

    def at(self, root: str) -> RequestError:
        """What the client is told; `root` is the path of what was tested, empty for a whole body."""
        path = root + "".join(reversed(self._places))
        if not root:
            path = path.removeprefix(".")
        text = self._text if path else self._text.replace("'{path}'", "the body")
        return self._error(text.replace("{path}", path), param=path or None)


def exhaust(steps: Iterator[None]) -> None:
    """Take all steps at once."""
    for _ in steps:
        pass


def _no_walk(value: Any, left: Leftovers) -> Iterator[None]:
    raise NotImplementedError("a scalar has no parts")


@dataclass(frozen=True)
class Check:
    """One checker.

    Attributes:
        schema: JSON Schema 2020-12 of the values that pass.
        core: what pydantic-core is told of them.
        look: of a scalar, the whole test: raises WrongValueError for a value that does not pass.
        walk: of all others, the same test part by part; between two of them others may run. It takes out
            of the value what no engine is to get, and notes it; a value that passes has nothing of this.
    """

    schema: Schema
    core: CoreSchema
    look: Test | None = None
    walk: Steps = _no_walk

    def __call__(self, value: Any, path: str) -> None:
        """Test a value that stands at `path`.

        Raises:
            InvalidFieldError, MissingFieldError, UnsupportedFieldError: naming the place.
        """
        try:
            self.test(value)
        except WrongValueError as wrong:
            raise wrong.at(path) from None

    @cached_property
    def passes(self) -> Callable[..., bool]:
        """Whether a value passes, without a reason."""
        return SchemaValidator(self.core).isinstance_python

    def test(self, value: Any) -> None:
        """Test a value in one go; nothing may be left out of it."""
        if self.look is not None:
            self.look(value)
        elif not self.passes(value):
            exhaust(self.walk(value, Leftovers(is_strict=True)))

    def in_steps(self, value: Any, left: Leftovers) -> Iterator[None]:
        """Test in as many steps as it takes."""
        if self.look is not None:
            self.look(value)
        else:
            yield from self.walk(value, left)

    def passes_at_once(self, value: Any) -> bool:
        """Whether a value passes that is small enough to be tested in one go."""
        return fits(value, STEP_ITEMS) and self.passes(value)
