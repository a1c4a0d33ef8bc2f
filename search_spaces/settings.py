"""Settings: checked against the annotations of the code that takes them, named by their path.

An author annotates, `weight: NotNegative`, and decorates functions and classes with `checked`
(ingredients of a strategy are decorated already). Code that takes settings names only the
parameter; the code that builds or calls it prepends the path.
"""

import difflib
import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter
from pathlib import PurePath
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union


class Range(NamedTuple):
    """The bounds of a number, in an annotation: `Annotated[float, Range(gt=0, le=1)]`.

    Those of `annotated_types` take 0.1 s to import.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __str__(self) -> str:
        words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
        return " and ".join(f"{words[name]} {bound}" for name, bound in self.given().items())

    def given(self) -> dict[str, float]:
        """The bounds that are set."""
        return {name: bound for name, bound in self._asdict().items() if bound is not None}

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(source) | self.given()


Count = Annotated[int, Range(ge=1)]
NotNegative = Annotated[float, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]
Share = Annotated[float, Range(ge=0, lt=1)]  # in [0, 1)
OpenShare = Annotated[float, Range(gt=0, lt=1)]  # in (0, 1)

Made = TypeVar("Made", bound=Callable[..., Any])
PARAMETER = re.compile(r"[a-z][\w.]*(, [a-z]\w*)*: ")  # "weight: ", "r, mu: ", "losses.x.weight: "
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a word",
    bool: "true or false",
    type(None): "null",
    Callable: "a function",
}


def located(path: str, message: str) -> str:
    """The message with the path of the setting prepended.

    At `losses.mine`, "weight: expected ..." becomes "losses.mine.weight: expected ..."; a message
    without a parameter follows a colon, and one that already starts with the path is unchanged.
    """
    if re.match(rf"{re.escape(path)}\b", message):
        return message
    return f"{path}{'.' if PARAMETER.match(message) else ': '}{message}"


@contextmanager
def setting(path: str) -> Iterator[None]:
    """A context manager that prepends the path of a setting to the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(located(path, str(error))) from error


def checked(taker: Made) -> Made:
    """Decorates a function or class: arguments that do not fit their annotations are a ValueError.

    Nothing is converted, and only plain data is checked, as YAML can hold it.
    """
    if isinstance(taker, type):
        taker.__init__ = checked(taker.__init__)  # type: ignore[misc]
        return taker
    signature = inspect.signature(taker)

    @functools.wraps(taker)
    def call(*args: Any, **kwargs: Any) -> Any:
        wrong = problems(taker, signature.bind_partial(*args, **kwargs).arguments)
        if wrong:
            raise ValueError("; ".join(wrong))
        return taker(*args, **kwargs)

    return typing.cast(Made, call)


def problems(taker: Callable[..., Any], given: Mapping[str, Any], path: str = "") -> list[str]:
    """What is wrong with the settings that `taker`, at this path, is to be called with."""
    known, found = _validators(taker), []
    for name, value in given.items():
        key = f"{path}.{name}" if path else name
        if name in known:
            hint, default, validate = known[name]
            if validate is None or not _plain(value) or value is default:
                continue
            if not _fits(validate, value):
                words = expected(hint)
                if isinstance(value, float) and not math.isfinite(value):
                    words = words.replace("a number", "a finite number")
                found.append(f"{key}: expected {words}, found {_shown(value)}")
        elif not any(name.startswith("*") for name in known):
            options = [f"{path}.{one}" if path else one for one in known]
            found.append(
                f"unknown setting '{key}'{nearest(key, options)}; known: {', '.join(known)}"
            )
    return found


def nearest(name: str, options: Sequence[str]) -> str:
    """`, did you mean 'x'?` for the closest name, or nothing."""
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def expected(hint: Any) -> str:
    """An annotation in plain words: `a whole number of at least 1 or null`."""
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Annotated:
        inner, *rest = parts
        if isinstance(rest[0], str):  # in the author's own words
            return rest[0]
        return " ".join([expected(inner).replace("finite ", ""), *map(str, rest)])
    if origin in (Union, UnionType):
        members = [expected(one) for one in parts if _is_plain_type(one)]
        return " or ".join(members or map(expected, parts))
    if origin is Literal:
        return f"one of {', '.join(_literal(one) for one in parts)}"
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}: {', '.join(map(expected, parts))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "settings in {}"
    if isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str:
        return "a list in []"
    return WORDS.get(origin) or inspect.formatannotation(origin)


def _shown(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return f"{value!r}, a word in YAML; a number needs a dot, as 3.0e-4"
    return "null" if value is None else repr(value)


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_plain_type(hint: Any) -> bool:
    return typing.get_origin(hint) is not None or hint in WORDS


def _plain(value: Any) -> bool:
    """Whether it is data as in YAML, without live objects."""
    if isinstance(value, Mapping):
        return all(map(_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float)


@functools.cache
def _validators(
    taker: Callable[..., Any],
) -> dict[str, tuple[Any, Any, Callable[[Any], Any] | None]]:
    """Parameter -> annotation, default, and validator, None if the annotation says nothing that
    plain data can be checked for; `*args` with their stars."""
    try:
        parameters = inspect.signature(taker, eval_str=True).parameters
    except Exception:  # names that exist only for type checkers, annotations that are no types
        try:
            parameters = inspect.signature(taker).parameters
        except ValueError:  # a function of C
            return {"**": (Parameter.empty, Parameter.empty, None)}
    stars: dict[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
    return {
        stars.get(p.kind, "") + name: (p.annotation, p.default, _validator(p.annotation))
        for name, p in parameters.items()
    }


def _takes_words(hint: Any) -> bool:
    """Whether an annotation has a class that its author makes of a word, such as Path."""
    parts = [one for one in typing.get_args(hint) if not isinstance(one, Range | str)]
    return any(map(_takes_words, parts)) or (isinstance(hint, type) and issubclass(hint, PurePath))


def _validator(hint: Any) -> Callable[[Any], Any] | None:
    import pydantic  # here: an import takes longer than all else that --help needs

    if hint is Parameter.empty or isinstance(hint, str) or _takes_words(hint):
        return None
    config = pydantic.ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        return pydantic.TypeAdapter(hint, config=config).validate_python
    except Exception:  # a protocol, or a type that pydantic cannot check
        return None


def _fits(validate: Callable[[Any], Any], value: Any) -> bool:
    for one in (value, tuple(value)) if isinstance(value, list) else (value,):  # YAML has no tuples
        try:
            validate(one)
            return True
        except ValueError:  # pydantic's error is one
            continue
    return False
