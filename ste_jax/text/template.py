"""Renders chat templates, which are programs of strangers: with a fixed date and bounded work.

The environment is that of `transformers`, less what differs from call to call. Every loop, call and value
takes from the work that a rendering may do, so that no template runs or grows without end.
"""

import contextlib
import contextvars
import dataclasses
import datetime
import functools
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ste_jax.errors import SteError
from ste_jax.paths import local_path

# Templates that print today's date (Llama 3.2) are given this one: prompts must not change overnight.
DEFAULT_DATE = "2024-07-26"
_LONGEST = 100_000  # characters of a template
_WORK, _WORK_PER_CHARACTER = 20_000_000, 200
_STEP = 100  # work of a loop's round or a call, in characters
_ITEM = 20  # work of an item of a list
_LARGEST_RESULT = 100_000_000  # of one call, in characters, for messages of a million characters
_LONGEST_INTEGER = 10_000  # in bits
# Functions whose results, or numbers on the way to them, can be as long as the product of their arguments.
_MULTIPLYING = frozenset(
    (
        *("replace", "join", "center", "indent", "batch", "slice", "truncate", "tojson", "round"),
        *("sum", "ljust", "rjust", "zfill", "expandtabs", "translate", "to_bytes"),
    )
)
# Functions that may compare every character of their text with every one of an argument. Searches from the
# left do not.
_COMPARING = frozenset(("strip", "lstrip", "rstrip", "trim", "rfind", "rindex", "rsplit", "rpartition"))
_COMPARISONS = 10  # for the work of one character
# Encodings of linear time: that of internationalised names takes the square of the length.
_ENCODING = frozenset(("encode", "decode"))
_ENCODINGS = frozenset(("utf-8", "utf8", "ascii", "latin-1"))
# Functions whose first text is a format.
_FORMATTING = frozenset(("format", "format_map", "strftime"))
# A width that a format takes from a value: %*d, {:{}}.
_OPEN_WIDTH = re.compile(r"%[^%a-zA-Z*]*+\*|\{[^{}:]*+:[^{}]*+\{")
# Filters and functions that draw at random, or take time that grows with the square of their text.
_LEFT_OUT = ("random", "urlize", "pprint", "lipsum", "wordwrap", "striptags")


@dataclasses.dataclass(frozen=True)
class ChatSettings:
    """Replacements for the chat template of a model, or for a part of it.

    Attributes:
      template: File of a chat template. "": that of the model.
      date: Date that templates print as today's, as YYYY-MM-DD. "": that of the model's training, else
        `DEFAULT_DATE`.
    """

    template: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if self.date:
            parse_date(self.date)

    @property
    def is_set(self) -> bool:
        """True if anything is replaced."""
        return self != ChatSettings()

    def read(self) -> str:
        """Returns the text of the template file: Jinja, or JSON with a field `chat_template`.

        Raises:
          SteError: "file_not_found" or "chat_invalid".
        """
        try:
            text = local_path(self.template, "chat_template").read_text("utf-8-sig")
        except FileNotFoundError as error:
            raise SteError("file_not_found", f"chat_template {self.template}: no such file") from error
        except (OSError, ValueError) as error:
            raise SteError(
                "chat_invalid", f"chat_template {self.template}: not a text file ({error})"
            ) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        template = value.get("chat_template") if isinstance(value, dict) else None
        if not isinstance(template, str):
            raise SteError(
                "chat_invalid",
                f"chat_template {self.template}: JSON without a text in the field chat_template; write the "
                "template itself to a file",
            )
        return template


class _TooMuchWork(Exception):
    pass


@dataclasses.dataclass
class _Work:
    """Remaining work of a rendering, in characters.

    Attributes:
      left: Work that is left.
      largest_result: Most characters of the result of one call.
      messages: Ids of the messages, whose texts do not count again in every list that holds them once.
    """

    left: float
    largest_result: float
    messages: frozenset[int]

    def spend(self, value: Any, least: int = 1) -> None:
        """Takes the size of a value, at least `least`."""
        self.left -= least
        stack, seen = [value], set()
        while stack and self.left >= 0:
            part = stack.pop()
            if id(part) in self.messages and id(part) not in seen:
                seen.add(id(part))
                self.left -= _ITEM
            elif isinstance(part, str | bytes):
                self.left -= len(part)
            elif isinstance(part, Collection):
                self.left -= _ITEM * len(part)
                if self.left >= 0 and not isinstance(part, range):
                    stack += [*part.keys(), *part.values()] if isinstance(part, dict) else part
            elif isinstance(part, Namespace):
                self.left -= _STEP
                stack.append(object.__getattribute__(part, "_Namespace__attrs"))
            elif isinstance(part, int):
                self.left -= part.bit_length() // 3 if part.bit_length() < _LONGEST_INTEGER else math.inf
        if self.left < 0:
            raise _TooMuchWork

    def check_product(self, size: float, factors: Sequence[Any]) -> None:
        """Refuses a call whose result may be too long to be made: numbers count by value, others by size."""
        product = size
        for factor in factors:
            product *= max(1, abs(factor)) if isinstance(factor, int) else self.size(factor)
            if product > self.largest_result:
                raise _TooMuchWork

    def check_format(self, text: str | bytes, values: Sequence[Any]) -> None:
        """Refuses a format whose result may be too long, or that takes a width from its values."""
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        digits = re.findall(r"\d+", text)
        fields = text.count("%") + text.count("{")
        if _OPEN_WIDTH.search(text.replace("{{", "")) or any(len(number) > 9 for number in digits):
            raise _TooMuchWork
        self.check_product(fields, [max(map(int, digits), default=0) + int(self.size(values))])

    def size(self, value: Any) -> float:
        """Returns the work that a value takes, which is spent."""
        before = self.left
        self.spend(value)
        return before - self.left


_work: contextvars.ContextVar[_Work] = contextvars.ContextVar("work")


@jinja2.pass_context  # no constant, so that nothing is computed while a template is compiled
def _spend(context: Context, value: Any, least: int) -> Any:
    """The filter that the compiler puts around expressions."""
    _work.get().spend(value, least)
    return value


def _call(function: Callable, name: str, receiver: Any, args: Sequence[Any], kwargs: Mapping) -> Any:
    """Calls a function that is not written in the template."""
    work, values = _work.get(), [*args, *kwargs.values()]
    work.spend([receiver, *values], _STEP)
    if isinstance(receiver, str):  # it may become a list of its characters
        work.check_product(len(receiver), [_ITEM])
    if name in _MULTIPLYING:
        work.check_product(work.size(receiver), values)
    if name in _COMPARING and values:
        work.left -= work.size(receiver) * work.size(values) / _COMPARISONS
    if name in _ENCODING and not set(map(str, values)) <= {*_ENCODINGS, "strict", "ignore", "replace"}:
        raise jinja2.TemplateError(f"{name} with arguments other than {', '.join(sorted(_ENCODINGS))}")
    if name in _FORMATTING:
        formats = [value for value in (receiver, *values) if isinstance(value, str)]
        work.check_format("".join(formats[:1]), values)
    work.spend(None)
    result = function(*args, **kwargs)
    if isinstance(result, Iterator):
        result = list(result)
    work.spend(result)
    return result


def _limited(name: str, function: Callable) -> Callable:
    """Returns a filter or test that takes its work; `wraps` keeps Jinja's notes on its first argument."""
    implicit = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        own, value, rest = args[:implicit], args[implicit], args[implicit + 1 :]
        return _call(functools.partial(function, *own, value), name, value, rest, kwargs)

    return limited


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Metered().visit(source), *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        work = _work.get()
        if operator == "*" and not all(isinstance(side, int | float) for side in (left, right)):
            work.check_product(1, [left, right])
        elif operator == "%" and isinstance(left, str | bytes):
            work.check_format(left, [right])
        elif operator == "**" and not (abs(left) < 2**32 and abs(right) < 100):
            raise _TooMuchWork
        result = super().call_binop(context, operator, left, right)
        work.spend(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable | None:
        wrapped = super().wrap_str_format(value)
        return wrapped and functools.partial(_call_with_receiver, wrapped, value.__name__, value.__self__)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        function = functools.partial(super().call, __context, __obj)
        if isinstance(__obj, Macro):
            _work.get().spend(args, _STEP)
            return function(*args, **kwargs)
        name = getattr(__obj, "__name__", "")
        return _call(function, name, getattr(__obj, "__self__", None), args, kwargs)


def _call_with_receiver(function: Callable, name: str, receiver: str, *args: Any, **kwargs: Any) -> Any:
    return _call(function, name, receiver, args, kwargs)


class _Metered(NodeTransformer):
    """Puts the filter `_spend` around what makes or compares values, and into loops and macros."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        node = super().generic_visit(node, *args, **kwargs)
        match node:
            case nodes.For():
                node.test = node.test and _metered(node.test, _STEP)
                node.body.insert(0, _step(node))
            case nodes.Macro() | nodes.CallBlock():
                node.body.insert(0, _step(node))
            case nodes.Call() | nodes.Filter() | nodes.Test() if node.dyn_args:
                node.dyn_args = nodes.Filter(node.dyn_args, "list", [], [], None, None)
            case nodes.AssignBlock():
                node.filter = _metered(node.filter)
            case nodes.Output():
                node.nodes = [n if isinstance(n, nodes.TemplateData) else _metered(n) for n in node.nodes]
            case nodes.Compare():
                node.expr = _metered(node.expr)
            case nodes.Operand():
                node.expr = _metered(node.expr)
            case nodes.Concat() | nodes.List() | nodes.Dict() | nodes.Getitem():
                return _metered(node) if getattr(node, "ctx", "load") == "load" else node
            case nodes.Tuple(ctx="load"):
                return _metered(node)
        return node


def _metered(node: nodes.Node | None, least: int = _ITEM) -> nodes.Filter:
    return nodes.Filter(node, "_spend", [nodes.Const(least)], [], None, None)


def _step(node: nodes.Node) -> nodes.ExprStmt:
    """Returns a statement that takes the work of one run of the body of a loop or macro."""
    written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    return nodes.ExprStmt(_metered(nodes.Const(0), _STEP + written))


class _Generation(Extension):
    """The statement `generation`, which marks what the assistant writes; its body is rendered."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """The function `dict` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Returns JSON text, whose work is taken part by part: nested lists repeat the indent many times."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    work, parts = _work.get(), []
    for part in encoder.iterencode(value):
        work.spend(part)
        parts.append(part)
    return "".join(parts)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False
    )
    environment.filters["tojson"] = _tojson
    for name in _LEFT_OUT:
        environment.filters.pop(name, None)
        environment.globals.pop(name, None)
    for table in (environment.filters, environment.tests):
        table.update({name: _limited(name, function) for name, function in table.items()})
    environment.filters["_spend"] = _spend
    environment.globals |= {"raise_exception": _raise_exception, "dict": _Dict()}
    return environment


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > _LONGEST:
        raise SteError("chat_invalid", f"the chat template has more than {_LONGEST} characters")
    return _environment().from_string(source)


@contextlib.contextmanager
def _working(messages: Sequence[Mapping[str, str]]) -> Iterator[None]:
    characters = sum(len(message["content"]) for message in messages)
    work, largest = _WORK + _WORK_PER_CHARACTER * characters, _LARGEST_RESULT * (1 + characters / 1_000_000)
    token = _work.set(_Work(work, largest, frozenset(map(id, messages))))
    try:
        yield
    finally:
        _work.reset(token)


def render(
    source: str,
    messages: Sequence[Mapping[str, str]],
    *,
    date: str,
    add_generation_prompt: bool,
    special: Mapping[str, str],
) -> str:
    """Returns the text that a chat template writes for messages.

    Args:
      source: Jinja source of the template.
      messages: Dicts of role and content.
      date: Date of `strftime_now` and `date_string`, as YYYY-MM-DD.
      add_generation_prompt: Variable of the template: begin the answer of the assistant.
      special: Variables of the template: special tokens by name, such as bos_token.

    Raises:
      SteError: "chat_invalid" if the template is broken, refuses the messages, or does not come to an end.
    """
    day, roles = parse_date(date), [message["role"] for message in messages]
    parts: list[str] = []
    try:
        turns = [dict(message) for message in messages]
        with _working(turns):
            for part in _compiled(source).generate(
                **special,
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                date_string=day.strftime("%d %b %Y"),
                strftime_now=day.strftime,
            ):
                parts.append(part)
    except SteError:
        raise
    except _TooMuchWork as error:
        raise SteError(
            "chat_invalid", f"the chat template does not come to an end, or writes too much, for {roles}"
        ) from error
    # A template is a program: it may raise anything, and the compiler of Python may refuse it.
    except Exception as error:
        kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
        raise SteError(
            "chat_invalid", f"the chat template cannot render turns of {roles}: {kind}{error}"
        ) from error
    return "".join(parts)


def parse_date(date: str) -> datetime.datetime:
    """Returns the date of a text.

    Raises:
      SteError: "argument_invalid" if it is not of the form YYYY-MM-DD.
    """
    try:
        return datetime.datetime.strptime(date, "%Y-%m-%d")
    except (ValueError, TypeError) as error:
        raise SteError(
            "argument_invalid", f"chat_date must be a date such as {DEFAULT_DATE}, not {date!r}"
        ) from error
