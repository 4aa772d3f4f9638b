"""A parser of the part of Bicep that these templates use, parameter files included.

pycep, the only other one in Python, does not tell the string 'x' from the name x, nor read parameter
files, so what it gives cannot be evaluated. Anything outside the subset is a `BicepSyntaxError`,
never a guess. Grammar: https://github.com/Azure/bicep/blob/main/docs/grammar.md
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class BicepSyntaxError(Exception):
    """The text is outside the subset; the message has file and line."""


@dataclass(frozen=True)
class Literal:
    """A string without interpolation, an integer, true, false or null."""

    value: str | int | bool | None


@dataclass(frozen=True)
class Name:
    """A parameter, variable, resource, module or loop variable."""

    name: str


@dataclass(frozen=True)
class Text:
    """A string with interpolations: literal parts and expressions, alternating."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True)
class Member:
    """`base.name`."""

    base: "Expression"
    name: str


@dataclass(frozen=True)
class Index:
    """`base[index]`."""

    base: "Expression"
    index: "Expression"


@dataclass(frozen=True)
class Call:
    """A function, or an operator under its name in ARM templates (`if`, `equals`, `or`, …)."""

    function: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True)
class Object:
    """`{ key: value }`, keys possibly interpolated."""

    items: tuple[tuple["Expression", "Expression"], ...]


@dataclass(frozen=True)
class Array:
    """`[ … ]`."""

    items: tuple["Expression", ...]


@dataclass(frozen=True)
class For:
    """`[for item in collection: body]`, or with `(item, index)`."""

    item: str
    index: str | None
    collection: "Expression"
    body: "Expression"


@dataclass(frozen=True)
class If:
    """`if (condition) body`, of a resource or module."""

    condition: "Expression"
    body: "Expression"


type Expression = Literal | Name | Text | Member | Index | Call | Object | Array | For | If


@dataclass(frozen=True)
class Declaration:
    """One `param`, `var`, `resource`, `module` or `output`."""

    kind: str
    name: str
    decorators: dict[str, tuple[Expression, ...]]
    detail: str
    """Type of a parameter or output, `type@version` of a resource, path of a module."""
    existing: bool
    value: Expression | None


@dataclass
class File:
    """The declarations of one file by name."""

    using: str | None = None
    declarations: dict[str, Declaration] = field(default_factory=dict)
    outputs: dict[str, Declaration] = field(default_factory=dict)

    def of(self, kind: str) -> Iterator[Declaration]:
        """Yield the declarations of one kind, in order."""
        return (found for found in self.declarations.values() if found.kind == kind)


class Token(NamedTuple):
    """`kind` is `word`, `number`, `string`, `new line`, `end`, or the punctuation itself."""

    kind: str
    text: str
    position: int


_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|//[^\n]*|/\*.*?\*/)|(?P<newline>\n)|(?P<multiline>'''.*?''')|(?P<quote>')"
    r"|(?P<number>\d+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>==|!=|<=|>=|&&|\|\||[-{}\[\]().,:=?<>@+*/%!])",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", "\\": "\\", "$": "$"}
_KEYWORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_BINARY = ({"||": "or"}, {"&&": "and"}, {"==": "equals", "!=": "notEquals"})
"""Operators from loosest to tightest."""


def _string_end(text: str, start: int) -> int:
    """Return where the string that opens at `start` ends, past its quote."""
    position = start + 1
    while position < len(text) and text[position] not in "'\n":
        if text[position] == "\\":
            position += 2
        elif text.startswith("${", position):
            position += 2
            while position < len(text) and text[position] != "}":
                position = _string_end(text, position) if text[position] == "'" else position + 1
            position += 1
        else:
            position += 1
    if position >= len(text) or text[position] != "'":
        raise BicepSyntaxError("a string does not end")
    return position + 1


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise BicepSyntaxError(f"unexpected {text[position]!r}")
        kind, end = str(match.lastgroup), match.end()
        if kind == "quote":
            kind, end = "string", _string_end(text, position)
        if kind != "skip":
            piece = text[position:end]
            kind = piece if kind == "mark" else "new line" if kind == "newline" else kind
            yield Token(kind, piece, position)
        position = end
    yield Token("end", "", position)


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        try:
            self._tokens = list(_tokens(text))
        except BicepSyntaxError as error:
            raise BicepSyntaxError(f"{where}: {error}") from None
        self._at = 0

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self, kind: str | None = None, text: str | None = None) -> Token:
        token = self._peek()
        if (kind is not None and token.kind != kind) or (text is not None and token.text != text):
            line = self._text.count("\n", 0, token.position) + 1
            raise BicepSyntaxError(f"{self._where}:{line}: {token.text!r} where {text or kind} is expected")
        self._at += 1
        return token

    def _skip(self, kind: str, text: str | None = None) -> bool:
        token = self._peek()
        if token.kind != kind or (text is not None and token.text != text):
            return False
        self._at += 1
        return True

    def _blank(self) -> None:
        while self._skip("new line"):
            pass

    def file(self) -> File:
        file, decorators = File(), {}
        while True:
            self._blank()
            if self._skip("end"):
                return file
            if self._skip("@"):
                name = self._take("word").text
                decorators[name] = self._arguments()
                continue
            keyword = self._take("word")
            if keyword.text == "targetScope":
                self._take("=")
                self.expression()
            elif keyword.text == "using":
                file.using = self._plain_string()
            else:
                declaration = self._declaration(keyword, decorators)
                among = file.outputs if declaration.kind == "output" else file.declarations
                among[declaration.name] = declaration
            decorators = {}
            self._take("end" if self._peek().kind == "end" else "new line")
            if self._tokens[self._at - 1].kind == "end":
                return file

    def _declaration(self, keyword: Token, decorators: dict[str, tuple[Expression, ...]]) -> Declaration:
        kind = keyword.text
        if kind not in {"param", "var", "resource", "module", "output"}:
            self._at -= 1
            self._take(text="a declaration")
        name = self._take("word").text
        detail, existing, value = "", False, None
        if kind in {"resource", "module"}:
            detail = self._plain_string()
            existing = self._skip("word", "existing")
        elif self._peek().kind == "word":
            detail = self._take().text
        if kind != "param" or self._peek().kind == "=":
            self._take("=")
            value = self._body() if kind in {"resource", "module"} else self.expression()
        return Declaration(kind, name, decorators, detail, existing, value)

    def _body(self) -> Expression:
        if self._skip("word", "if"):
            self._take("(")
            condition = self.expression()
            self._take(")")
            return If(condition, self._object())
        return self.expression()

    def expression(self) -> Expression:
        condition = self._binary(0)
        if not self._skip("?"):
            return condition
        self._blank()
        chosen = self.expression()
        self._blank()
        self._take(":")
        self._blank()
        return Call("if", (condition, chosen, self.expression()))

    def _binary(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self._postfix()
        left = self._binary(level + 1)
        while self._peek().kind in _BINARY[level]:
            function = _BINARY[level][self._take().kind]
            self._blank()
            left = Call(function, (left, self._binary(level + 1)))
        return left

    def _postfix(self) -> Expression:
        base = self._primary()
        while True:
            if self._skip("."):
                base = Member(base, self._take("word").text)
            elif self._skip("["):
                base = Index(base, self.expression())
                self._take("]")
            else:
                return base

    def _primary(self) -> Expression:  # noqa: PLR0911 - one way out for each kind of token
        match self._peek().kind:
            case "{":
                return self._object()
            case "[":
                return self._array()
            case "(":
                self._take()
                inner = self.expression()
                self._take(")")
                return inner
            case "number":
                return Literal(int(self._take().text))
            case "string":
                return self._string(self._take())
            case "multiline":
                return Literal(self._take().text[3:-3].removeprefix("\n"))
        word = self._take("word").text
        if self._peek().kind == "(":
            return Call(word, self._arguments())
        return Literal(_KEYWORDS[word]) if word in _KEYWORDS else Name(word)

    def _arguments(self) -> tuple[Expression, ...]:
        self._take("(")
        self._blank()
        arguments = []
        while not self._skip(")"):
            arguments.append(self.expression())
            self._skip(",")
            self._blank()
        return tuple(arguments)

    def _object(self) -> Object:
        self._take("{")
        self._blank()
        items = []
        while not self._skip("}"):
            token = self._take()
            key = self._string(token) if token.kind == "string" else Literal(token.text)
            self._take(":")
            items.append((key, self.expression()))
            self._skip(",")
            self._blank()
        return Object(tuple(items))

    def _array(self) -> Array | For:
        self._take("[")
        self._blank()
        if self._skip("word", "for"):
            index = None
            if self._skip("("):
                item = self._take("word").text
                self._take(",")
                index = self._take("word").text
                self._take(")")
            else:
                item = self._take("word").text
            self._take("word", "in")
            collection = self.expression()
            self._take(":")
            body = self._body()
            self._take("]")
            return For(item, index, collection, body)
        items = []
        while not self._skip("]"):
            items.append(self.expression())
            self._skip(",")
            self._blank()
        return Array(tuple(items))

    def _plain_string(self) -> str:
        value = self._string(self._take("string"))
        if not isinstance(value, Literal):
            raise BicepSyntaxError(f"{self._where}: no interpolation is allowed in a type or path")
        return str(value.value)

    def _string(self, token: Token) -> Literal | Text:
        parts: list[Expression] = []
        inner, literal, position = token.text[1:-1], "", 0
        while position < len(inner):
            if inner[position] == "\\":
                literal += _ESCAPES[inner[position + 1]]
                position += 2
            elif inner.startswith("${", position):
                end = position + 2
                while inner[end] != "}":
                    end = _string_end(inner, end) if inner[end] == "'" else end + 1
                nested = _Parser(inner[position + 2 : end], self._where)
                parts += [Literal(literal), nested.expression()]
                nested._take("end")
                literal, position = "", end + 1
            else:
                literal += inner[position]
                position += 1
        return Text((*parts, Literal(literal))) if parts else Literal(literal)


def parse(text: str, where: str) -> File:
    """Parse a `.bicep` or `.bicepparam` text; `where` names it in errors.

    Raises:
        BicepSyntaxError: the text is outside the subset.
    """
    return _Parser(text, where).file()
