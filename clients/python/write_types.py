"""Writes the client's types from the API's OpenAPI description: `make client-types`.

    types/words.py      the words that a member may be, such as a channel
    types/requests.py   bodies of requests
    types/answers.py    bodies of answers
    types/queries.py    parameters of queries, one set an operation

Answers are plain JSON at run time, and these types say which: a new member of an answer needs no new client.
"""

import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from api.app import create_app
from config.settings import read_settings
from config.wiring import Wiring

Schema = dict[str, Any]

FOLDER: Final = Path(__file__).resolve().parent / "src" / "notifier_client" / "types"
#: Front doors for callers that know other systems, and what providers and browsers call: the client has none of it.
LEFT_OUT: Final = frozenset(
    {
        *("postTypedEvent", "sendNotification", "notifyUser"),
        *("takeReceipt", "takeReceiptFromQuery", "showUnsubscribePage", "unsubscribeCategory"),
    }
)
_LEFT_OUT_TYPES: Final = frozenset({"TypedEvent", "Notify", "Batch"})
_PLAIN: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_REFERENCE: Final = re.compile(r"'#/components/schemas/(\w+)'")
_HEAD: Final = "# Written by `make client-types` from the OpenAPI description: changes belong there.\n"
#: Names of members that say too little by themselves.
_VAGUE: Final = ("How", "Kind", "Type")
_PACKAGE: Final = "notifier_client.types"
_MOMENT: Final = "#: RFC 3339 with an offset, or a datetime with a time zone.\nMoment: TypeAlias = str | datetime"
_TYPING: Final = ("Any", "Literal", "NotRequired", "Required", "TypeAlias", "TypedDict")


def description() -> Schema:
    """Return the OpenAPI description. Nothing is asked of Postgres."""
    wires = Wiring(read_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}))
    described: Schema = create_app(wires).test_client().get("/openapi.json").get_json()
    return described


def operations(document: Schema) -> Iterator[Schema]:
    """Yield the operations that the client has."""
    for item in document["paths"].values():
        yield from (each for each in item.values() if each["operationId"] not in LEFT_OUT)


class Types:
    """The types of one description."""

    def __init__(self, document: Schema) -> None:
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        self._operations = list(operations(document))
        asked = self._reached([each["requestBody"] for each in self._operations if "requestBody" in each])
        answered = self._reached([each["responses"] for each in self._operations])
        self._requests = [name for name in self._schemas if name in asked and self._is_type(name)]
        self._answers = [name for name in self._schemas if name in answered - asked and self._is_type(name)]
        self._words = self._named_words()

    def files(self) -> dict[str, str]:
        """Return the text of each file."""
        words = [_word(name, each) for each, name in self._words.items()]
        requests = [self._class(name) for name in self._in_order(self._requests)]
        answers = [self._class(name) for name in self._in_order(self._answers)]
        queries = [each for operation in self._operations if (each := self._query(operation))]
        known = {f"{_PACKAGE}.words": ["Moment", *self._words.values()]}
        shared = {**known, f"{_PACKAGE}.requests": self._requests}
        return {
            "words.py": _file("The values that members of requests and answers may have.", [_MOMENT, *words]),
            "requests.py": _file("Bodies of requests.", requests, known),
            "answers.py": _file("Bodies of answers.", answers, shared),
            "queries.py": _file("Parameters of queries, for each operation that has some.", queries, known),
            "__init__.py": _index({**shared, f"{_PACKAGE}.answers": self._answers}),
        }

    def _reached(self, part: object) -> set[str]:
        """Return the names of all schemas that a part of the document leads to."""
        found: set[str] = set()
        waiting = set(_REFERENCE.findall(str(part)))
        while waiting:
            name = waiting.pop()
            found.add(name)
            waiting |= set(_REFERENCE.findall(str(self._schemas[name]))) - found
        return found

    def _in_order(self, names: Sequence[str]) -> list[str]:
        """Return names of schemas, each after those that it refers to."""
        found: dict[str, None] = {}

        def add(name: str) -> None:
            referred: list[str] = _REFERENCE.findall(str(self._schemas[name]))
            for each in [*referred, self._base_of(name)]:
                if each is not None and each in names and each not in found:
                    add(each)
            found[name] = None

        for name in names:
            add(name)
        return list(found)

    def _is_type(self, name: str) -> bool:
        """Return whether a schema has a type of its own: pages are all alike, and texts are `str`."""
        members: Schema = self._schemas[name].get("properties", {})
        return bool(members) and set(members) != {"items", "next_cursor"} and name not in _LEFT_OUT_TYPES

    def _named_words(self) -> dict[tuple[str, ...], str]:
        """Return a name for each set of words: the member's, or with that of its schema where the member's is vague."""
        found: dict[tuple[str, ...], tuple[str, str]] = {}
        for name in [*self._requests, *self._answers]:
            for member, each in self._schemas[name]["properties"].items():
                if len(words := _words_of(each)) > 1 and words not in found:
                    found[words] = (name.removesuffix("Out"), _camel(member))
        members = [member for _, member in found.values()]
        vague = {*_VAGUE, *self._schemas, *(each for each in members if members.count(each) > 1)}
        return {words: name + member if member in vague else member for words, (name, member) in found.items()}

    def _class(self, name: str) -> str:
        schema = self._schemas[name]
        is_request = name in self._requests
        base = self._base_of(name)
        members = {
            member: each
            for member, each in schema["properties"].items()
            if not base or member not in self._schemas[base]["properties"]
        }
        required = set(schema.get("required", ()))
        lines = {
            member: _marked(
                self.annotation(each, is_request=is_request), is_required=member in required, is_request=is_request
            )
            for member, each in members.items()
        }
        words = schema.get("description") or schema.get("title") or name
        return _typed_dict(name, base, words, lines, total=not is_request)

    def _base_of(self, name: str) -> str | None:
        """Return the schema of the same kind that has the most members of this one, and no others."""
        group = self._requests if name in self._requests else self._answers
        own = self._schemas[name]["properties"].items()
        required = set(self._schemas[name].get("required", ()))
        smaller = [
            each
            for each in group
            if 2 < len(self._schemas[each]["properties"]) < len(own)
            and all(item in own for item in self._schemas[each]["properties"].items())
            and set(self._schemas[each].get("required", ())) == required & set(self._schemas[each]["properties"])
        ]
        return max(smaller, key=lambda each: len(self._schemas[each]["properties"]), default=None)

    def _query(self, operation: Schema) -> str | None:
        """Return the type of an operation's query, where it takes more than `reveal`."""
        found = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        if not found.keys() - {"reveal"}:
            return None
        lines = {name: self.annotation(each, is_request=True) for name, each in found.items()}
        name = operation["operationId"][0].upper() + operation["operationId"][1:] + "Query"
        return _typed_dict(name, None, f"The query of {operation['operationId']}.", lines, total=False)

    def annotation(self, schema: Schema, *, is_request: bool) -> str:
        """Return the type of what a schema allows."""
        parts = list(dict.fromkeys(self._parts(schema, is_request=is_request)))
        return " | ".join(sorted(parts, key=lambda each: each == "None"))

    def _parts(self, schema: Schema, *, is_request: bool) -> Iterator[str]:
        if "$ref" in schema:
            yield self._referred(schema["$ref"].rpartition("/")[2], is_request=is_request)
            return
        choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or []
        for each in choices:
            # OpenAPI 3.0 has no null: an object without members beside a type stands for it.
            stands_for_null = each.get("nullable") and each.get("type") == "object" and len(each) == 2
            yield from ["None"] if stands_for_null else self._parts(each, is_request=is_request)
        if not choices:
            yield self._own(schema, is_request=is_request)
        if schema.get("nullable"):
            yield "None"

    def _referred(self, name: str, *, is_request: bool) -> str:
        if self._is_type(name):
            return name
        return self.annotation(self._schemas[name], is_request=is_request)

    def _own(self, schema: Schema, *, is_request: bool) -> str:
        if words := _words_of(schema):
            return self._words.get(words) or f"Literal[{', '.join(map(_quoted, words))}]"
        if schema.get("enum") == [None]:
            return "None"
        kind = schema.get("type")
        if kind == "array":
            return f"list[{self.annotation(schema['items'], is_request=is_request)}]"
        if kind == "object":
            return f"dict[str, {self._values(schema, is_request=is_request)}]"
        if schema.get("format") == "date-time" and is_request:
            return "Moment"
        return _PLAIN.get(str(kind), "Any")

    def _values(self, schema: Schema, *, is_request: bool) -> str:
        """Return the type of an object's values: an object of any names, or one with members of one type."""
        more = schema.get("additionalProperties")
        found = [each for each in schema.get("properties", {}).values() if "not" not in each]
        kinds = {self.annotation(each, is_request=is_request) for each in [*found, *([more] if more else [])]}
        return kinds.pop() if len(kinds) == 1 else "Any"


def _words_of(schema: Schema) -> tuple[str, ...]:
    words = tuple(each for each in schema.get("enum", ()) if each is not None)
    return words if words and all(isinstance(each, str) for each in words) else ()


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _quoted(text: str) -> str:
    return f'"{text}"'


def _marked(annotation: str, *, is_required: bool, is_request: bool) -> str:
    if is_request:
        return f"Required[{annotation}]" if is_required else annotation
    return annotation if is_required else f"NotRequired[{annotation}]"


def _word(name: str, words: Iterable[str]) -> str:
    return f"{name}: TypeAlias = Literal[{', '.join(map(_quoted, words))}]"


def _typed_dict(name: str, base: str | None, words: str, lines: dict[str, str], *, total: bool) -> str:
    """Return a class; members whose names Python keeps for itself come from a base in the functional form."""
    odd = {member: each for member, each in lines.items() if keyword.iskeyword(member) or not member.isidentifier()}
    kind = "" if total else ", total=False"
    text = ""
    if odd:
        inner = ", ".join(f"{_quoted(member)}: {_quoted(each)}" for member, each in odd.items())
        text = f'_{name} = TypedDict("_{name}", {{{inner}}}{kind})\n\n\n'
    bases = ", ".join([*([base] if base else []), *([f"_{name}"] if odd else [])]) or "TypedDict"
    text += f'class {name}({bases}{kind}):\n    """{words}"""\n'
    members = [f"    {member}: {each}" for member, each in lines.items() if member not in odd]
    return text + ("\n" + "\n".join(members) if members else "").rstrip()


def _file(words: str, parts: list[str], elsewhere: Mapping[str, Iterable[str]] | None = None) -> str:
    """Return a file, with imports of what its parts use; `elsewhere`: module → the names that it has."""
    body = "\n\n\n".join(parts)
    used = set(re.findall(r"\w+", re.sub(r'""".*?"""', "", body, flags=re.DOTALL)))
    modules = {"datetime": ["datetime"], "typing": _TYPING, **(elsewhere or {})}
    imports = []
    for module, names in modules.items():
        if found := sorted(set(names) & used):
            imports.append(f"from {module} import {', '.join(found)}")
    return "\n".join([_HEAD + f'"""{words}"""', "", *imports, "", body, ""])


def _index(modules: Mapping[str, Iterable[str]]) -> str:
    """Return the file that has all names in one place."""
    imports = [f"from {module} import {', '.join(sorted(names))}" for module, names in modules.items()]
    names = ", ".join(_quoted(each) for each in sorted(each for found in modules.values() for each in found))
    words = "Shapes of requests and answers, written from the API's OpenAPI description."
    return "\n".join([_HEAD + f'"""{words}"""', "", *imports, "", f"__all__ = [{names}]", ""])


def formatted(name: str, text: str) -> str:
    """Return a file as Ruff would have it."""
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        done = subprocess.run(  # noqa: S603 -- our own tool, with arguments of our own
            [str(ruff), *command, "--stdin-filename", FOLDER / name, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def written() -> dict[str, str]:
    """Return the files as they should be, by their names."""
    return {name: formatted(name, text) for name, text in Types(description()).files().items()}


if __name__ == "__main__":
    for file_name, content in written().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
