"""Rules about several members of an object: each checks requests and describes itself, so that both say the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import marshmallow as ma
from marshmallow import ValidationError, validates_schema

from api.schemas.text_patterns import ADDRESSES, NULL
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.states import Channel

Fields = dict[str, Any]
Fragment = dict[str, Any]
#: The name of a field in JSON, where its own name in Python is another.
Named = Callable[[str], str]


def absent(*names: str) -> Fragment:
    """Return the schema of objects in which each of some members is null or left out."""
    return {"properties": dict.fromkeys(names, NULL)}


def given(*names: str) -> Fragment:
    """Return the schema of objects that have each of some members, not null."""
    return {"required": list(names), "properties": {name: {"not": NULL} for name in names}}


def either(*fragments: Fragment) -> Fragment:
    """Return the schema of objects that fit one of some schemas, or several."""
    return {"anyOf": list(fragments)}


def both(*fragments: Fragment) -> Fragment:
    """Return the schema of objects that fit all of some schemas, which speak of different members."""
    whole: Fragment = {"properties": {}}
    for each in fragments:
        whole["properties"] |= each["properties"]
        if "required" in each:
            whole["required"] = [*whole.get("required", ()), *each["required"]]
    return whole


def valued(name: str, *values: object, required: bool = True) -> Fragment:
    """Return the schema of objects whose member has one of some values; it must be there where it is `required`."""
    kind = "boolean" if isinstance(values[0], bool) else "string"
    fragment: Fragment = {"properties": {name: {"type": kind, "enum": list(values)}}}
    return {"required": [name], **fragment} if required else fragment


class Rule(Protocol):
    """A rule about members of an object."""

    def check(self, data: Fields) -> None:
        """Raise ValidationError where loaded fields break it."""

    def describe(self, named: Named) -> Fragment:
        """Return the schema that says the same of a request."""


@dataclass(frozen=True, slots=True)
class NotBoth:
    """Two members exclude each other; the error stands at the second one."""

    first: str
    second: str
    error: str

    def check(self, data: Fields) -> None:
        """Raise ValidationError where both are given."""
        if data.get(self.first) is not None and data.get(self.second) is not None:
            raise ValidationError(self.error, self.second)

    def describe(self, named: Named) -> Fragment:
        """Return the schema: one of them is absent."""
        return either(absent(named(self.first)), absent(named(self.second)))


@dataclass(frozen=True, slots=True)
class Needs:
    """A member needs another one beside it."""

    member: str
    needed: str
    error: str
    at: str

    def check(self, data: Fields) -> None:
        """Raise ValidationError where the other one is missing."""
        if data.get(self.member) is not None and data.get(self.needed) is None:
            raise ValidationError(self.error, self.at)

    def describe(self, named: Named) -> Fragment:
        """Return the schema: the first one is absent, or the other one given."""
        return either(absent(named(self.member)), given(named(self.needed)))


@dataclass(frozen=True, slots=True)
class Together:
    """Two members go together: both or neither; the error stands at the missing one."""

    first: str
    second: str
    error: str

    def check(self, data: Fields) -> None:
        """Raise ValidationError where one is missing."""
        if (data.get(self.first) is None) != (data.get(self.second) is None):
            raise ValidationError(self.error, self.second if data.get(self.second) is None else self.first)

    def describe(self, named: Named) -> Fragment:
        """Return the schema: both are absent, or both given."""
        names = (named(self.first), named(self.second))
        return either(absent(*names), given(*names))


@dataclass(frozen=True, slots=True)
class OneOf:
    """Exactly one of two members is given; the error stands at the second one."""

    first: str
    second: str
    error: str

    def check(self, data: Fields) -> None:
        """Raise ValidationError where none or both are given."""
        if (data.get(self.first) is None) == (data.get(self.second) is None):
            raise ValidationError(self.error, self.second)

    def describe(self, named: Named) -> Fragment:
        """Return the schema: one is given, the other one absent."""
        first, second = named(self.first), named(self.second)
        return either(both(given(first), absent(second)), both(absent(first), given(second)))


@dataclass(frozen=True, slots=True)
class SomeOf:
    """At least one of some members is given; the error stands at the last one of them."""

    members: tuple[str, ...]
    error: str

    def check(self, data: Fields) -> None:
        """Raise ValidationError where none is given."""
        if all(data.get(each) is None for each in self.members):
            raise ValidationError(self.error, self.members[-1])

    def describe(self, named: Named) -> Fragment:
        """Return the schema: one of them is given."""
        return either(*(given(named(each)) for each in self.members))


@dataclass(frozen=True, slots=True)
class Addressed:
    """An address has a channel, and is an address of it; it is brought into its one form.

    `instead`: a member that the channel may stand beside in place of an address.
    """

    address: str
    instead: str | None = None
    convert: Callable[[Channel, str], str] = normalised

    def check(self, data: Fields) -> None:
        """Raise ValidationError where it is no address of its channel, or one of the two is missing."""
        channel, address = data.get("channel"), data.get(self.address)
        if address is not None and channel is None:
            raise ValidationError(f"{'A recipient needs' if self.instead else 'An address has'} a channel.", "channel")
        if channel is not None and address is None and (self.instead is None or data.get(self.instead) is None):
            raise ValidationError("A channel needs a recipient or a user_id.", self.address)
        if channel is not None and address is not None:
            try:
                data[self.address] = self.convert(channel, address)
            except ValueError as error:
                raise ValidationError(str(error), self.address) from None

    def describe(self, named: Named) -> Fragment:
        """Return the schema: an address in the form of its channel, or none."""
        address = named(self.address)
        forms = [
            {
                "required": [address, "channel"],
                "properties": {"channel": {"type": "string", "enum": [channel.value]}, address: form},
            }
            for channel, form in ADDRESSES.items()
        ]
        if self.instead is None:
            return either(absent(address, "channel"), *forms)
        beside = both(absent(address), given(named(self.instead)))
        return either(absent(address, "channel"), beside, *forms)


@dataclass(frozen=True, slots=True)
class Described:
    """A rule that a schema's own code holds requests to."""

    fragment: Fragment

    def check(self, data: Fields) -> None:
        """Check nothing."""

    def describe(self, named: Named) -> Fragment:
        """Return the schema as it was given."""
        del named
        return self.fragment


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about the same members, described together: as the few ways in which all of them can be kept.

    Who makes requests of a description would otherwise have to try all combinations, most of which contradict.
    """

    rules: tuple[Rule, ...]

    def check(self, data: Fields) -> None:
        """Raise ValidationError with what each of them says."""
        errors: dict[str, list[str]] = {}
        for rule in self.rules:
            try:
                rule.check(data)
            except ValidationError as error:
                _note(error, errors)
        if errors:
            raise ValidationError(errors)

    def describe(self, named: Named) -> Fragment:
        """Return the schema: the ways that are left of all combinations."""
        ways: list[Fragment] = [{"properties": {}}]
        for rule in self.rules:
            branches = rule.describe(named)["anyOf"]
            ways = _simplest([way for one in ways for each in branches if (way := _merged(one, each))])
        return either(*ways)


def _note(error: ValidationError, errors: dict[str, list[str]]) -> None:
    """Add what a rule says of a member to the errors, where nothing is said of it yet."""
    found: dict[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]  # marshmallow's
    for name, messages in found.items():
        errors.setdefault(name, messages)


_GIVEN: Final[Fragment] = {"not": NULL}


def _merged(one: Fragment, other: Fragment) -> Fragment | None:
    """Return the schema of objects that fit both; None where none can."""
    properties = dict(one["properties"])
    for name, form in other["properties"].items():
        found = _narrower(properties.get(name, form), form)
        if found is None:
            return None
        properties[name] = found
    required = {*one.get("required", ()), *other.get("required", ())}
    return {"required": sorted(required), "properties": properties} if required else {"properties": properties}


def _narrower(one: Fragment, other: Fragment) -> Fragment | None:
    if one == other:
        return one
    if _GIVEN in (one, other):
        form = other if one == _GIVEN else one
        return None if form == NULL else form
    common = [each for each in one.get("enum", ()) if each in other.get("enum", ())]
    return {**one, "enum": common} if common else None


def _simplest(ways: list[Fragment]) -> list[Fragment]:
    """Leave out the ways that others allow too, one of them or two together."""
    kept: list[Fragment] = []
    for way in sorted(ways, key=lambda each: len(each["properties"])):
        if not any(_allows(each, way) for each in kept):
            kept.append(way)
    for way in list(kept):
        others = [each for each in kept if each is not way]
        if _is_split_among(way, others):
            kept = others
    return kept


def _is_split_among(way: Fragment, others: list[Fragment]) -> bool:
    """Return whether others allow a way's objects with a member that it says nothing of, and those without."""
    free = {name for other in others for name in other["properties"]} - way["properties"].keys()
    return any(
        all(any(_allows(other, both(way, half)) for other in others) for half in (absent(name), given(name)))
        for name in free
    )


def _allows(wide: Fragment, narrow: Fragment) -> bool:
    """Return whether all objects that fit a narrow schema fit a wide one."""
    members = narrow["properties"]
    return set(wide.get("required", ())) <= set(narrow.get("required", ())) and all(
        name in members and _narrower(form, members[name]) == members[name] for name, form in wide["properties"].items()
    )


class Ruled(ma.Schema):
    """A schema with rules about its members."""

    RULES: ClassVar[Sequence[Rule]] = ()
    #: Where there are many, bodies of requests have them beside the schema: who combines them all meets fewer at once.
    BESIDE: ClassVar[bool] = False

    @validates_schema(skip_on_field_errors=True)
    def _check_rules(self, data: Fields, **_: Any) -> None:
        errors: dict[str, list[str]] = {}
        for rule in self.RULES:
            try:
                rule.check(data)
            except ValidationError as error:
                _note(error, errors)
        if errors:
            raise ValidationError({self.fields[name].data_key or name: each for name, each in errors.items()})

    @classmethod
    def fragments(cls) -> list[Fragment]:
        """Return the schemas of all its rules."""
        fields: Mapping[str, Any] = cls._declared_fields
        return [rule.describe(lambda name: fields[name].data_key or name) for rule in cls.RULES]
