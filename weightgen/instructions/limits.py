"""Limits in a prompt: parameters, memory and accuracy, read from its canonical text."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from weightgen.errors import InstructionError

BYTES_PER_WEIGHT = 4
AROUND_FACTORS = (Fraction(4, 5), Fraction(6, 5))
"""What "around 4,000" allows, as factors."""

Bound = Literal["maximum", "minimum", "around"]

_MAXIMUM_STRICT = """under|sub|below|beneath|underneath|lower than|less than|less then|fewer than|fewer then|
smaller than|lighter than|lower then|short of|shy of"""
_MAXIMUM = """at most|at the most|at maximum|up to|maximum|max|within|cap|capped at|capped to|limit|limited to|
budget|ceiling|upper bound|inside|topping out at|top out at|bounded by|restricted to|allowance"""
_MINIMUM_STRICT = """over|above|more than|more then|greater than|larger than|bigger than|higher than|better than|
exceed|exceeding|beyond|past|beat|beating|north of|surpass|surpassing"""
_MINIMUM = """at least|at minimum|at the least|minimum|min|upward of|upwards of|starting from|starting at|
from at least|lower bound|floor|reach|reaching|hit|hitting"""
_AROUND = """around|about|approximately|approx|roughly|circa|ca|close to|near|nearly|some|somewhere around|
in the region of|on the order of"""
_FILLER = """a|an|the|of|total|mere|just|only|roughly|about|around|approximately|some|to|be|at|is|number|in|count|
size|mark|say|or|equal|:|,|for|it|model|network|than"""
_NOT = (
    "(?:not|no|never|nothing|without|nor|none|avoid)(?: (?:be|go|going|have|having|get|getting|use|using|any|ever|grow|"
    "growing|take|need|with|weigh|weighing|come|in|at|cost|a|single|weight|parameter|param|should|must))*"
)


def _words(alternatives: str) -> list[str]:
    return [" ".join(part.split()) for part in alternatives.split("|")]


_COMPARATORS: dict[str, tuple[Bound, bool]] = (
    {word: ("maximum", True) for word in _words(_MAXIMUM_STRICT)}
    | {word: ("maximum", False) for word in _words(_MAXIMUM)}
    | {word: ("minimum", True) for word in _words(_MINIMUM_STRICT)}
    | {word: ("minimum", False) for word in _words(_MINIMUM)}
    | {word: ("around", False) for word in _words(_AROUND)}
)
_ALTERNATIVES = "|".join(sorted(_COMPARATORS, key=len, reverse=True))
_FILLERS = "|".join(_words(_FILLER))
_BEFORE = re.compile(rf"(?:^|(?<= ))(?:(?P<negated>{_NOT}) )?(?P<word>{_ALTERNATIVES}) (?:(?:{_FILLERS}) )*$")
_AFTER_WORDS: dict[Bound, str] = {
    "around": "or (?:so|thereabout|there about)|ish|give or take",
    "maximum": (
        "or (?:less|fewer|under|below|smaller|lower)|and (?:under|below)|at (?:the )?most|maximum|max|top|budget|limit|"
        "cap|ceiling"
    ),
    "minimum": (
        "or (?:more|better|higher|above|greater|over|larger|bigger|up|beyond)|and (?:up|above|better|over)|upward|"
        "at (?:the |a )?(?:least|minimum)|minimum|min"
    ),
}
_AFTER: tuple[tuple[re.Pattern[str], Bound], ...] = tuple(
    (re.compile(rf"(?: in total| total| altogether| overall| ,)? (?:{words})(?= |$)(?! (?:of |: )?-?\d)"), bound)
    for bound, words in _AFTER_WORDS.items()
)
_PARAMETERS = (
    r"(?: (?:trainable|learnable|free|total|model|tunable|network|neural|real|scalar|adjustable|learned|trained|"
    r"individual))*"
    r" (?:parameter|param|weight|coefficient|connection|value|float|number)(?= |$)"
)
_PARAMETERS_BEFORE = re.compile(
    r"(?:^| )(?:parameter|param|weight|coefficient|size)(?: (?:count|number|total|is|be|to|of|at|in|:|,|stay|remain|"
    r"should|must|kept|stays|model|network|the|keep|it|limit|budget|cap|ceiling))* $"
)
_ACCURACY = (
    r"(?: (?:of the )?(?:test|validation|held out|classification|top 1|overall|mean))*"
    r" (?:accuracy|accurate|correct|correctly|right|success|hit rate|precision|score)(?: rate)?(?= |$)"
)
_ACCURACY_BEFORE = re.compile(
    r"(?:^| )(?:accuracy|accurate|acc|score|scoring|right|correct|correctly|precision)"
    r"(?: (?:rate|score|is|be|to|of|at|in|on|that|should|must|reach|reaching|hit|hitting|get|which|:|,|for|goes|go|"
    r"stay|the|level|target|floor|test|with))* $"
)
_ERROR = (
    r"(?: (?:test|validation|classification|of|the|case|digit|image|time|are|is))*"
    r" (?:error|mistake|wrong|misclassif\w+|misread|failure|failed|missed)(?: rate)?(?= |$)"
)
_ERROR_BEFORE = re.compile(
    r"(?:^| )(?:error|mistake|wrong|misclassif\w+|misread\w*|failure|failing|fail|miss|missing)"
    r"(?: (?:rate|is|be|to|of|at|in|on|that|should|must|stay|:|,|kept|the|for))* $"
)
_NUMBER = re.compile(r"(?<![^ ])-?\d+(?:\.\d+)?(?![^ ])")
_UNSUPPORTED = re.compile(
    r" (?:ms|millisecond|microsecond|second|sec|minute|hour|flop|flops|mac|mult add|multiply add|multiplication|"
    r"operation|op|epoch|step|iteration|watt|joule|dollar|cent|neuron|unit|node|channel|filter|kernel|feature|"
    r"bit)(?= |$)"
)
_COUNTED = re.compile(
    r" (?:image|example|sample|digit|pixel|class|classe|dataset|picture|scan|(?:[a-z]+ )?layer|"
    r"convolution|deep)(?= |$)"
)
_OUT_OF = re.compile(r"(?P<out> out)? of (?:every |a |each )?(?P<all>\d+)(?![^ ])")
_SECOND = re.compile(
    r"(?: percent| byte| parameter| param| weight)? (?:up )?(?P<word>and|to) (?P<number>\d+(?:\.\d+)?)(?![^ ])"
)
_OTHER_PERCENT = re.compile(
    r" percent (?:small|large|few|less\b|big|more\b|dropout|spars|prun|of (?:the |it |all )*(?:parameter|weight|size|"
    r"original|network))"
)


@dataclass
class Limits:
    """What was read so far; parameters inclusive on both sides."""

    low: int | None = None
    high: int | None = None
    accuracy: float | None = None

    def at_most(self, parameters: int) -> None:
        self.high = parameters if self.high is None else min(self.high, parameters)

    def at_least(self, parameters: int) -> None:
        self.low = parameters if self.low is None else max(self.low, parameters)

    def accurate(self, accuracy: Fraction) -> None:
        if not 0 <= accuracy <= 1:
            raise InstructionError(
                "no network has such an accuracy", got=f"{float(100 * accuracy):.6g} %", expected="0 to 100 %"
            )
        self.accuracy = max(self.accuracy or 0.0, float(accuracy))


def read_limits(text: str) -> tuple[Limits, str]:
    """The limits in a canonical text, and the text with `|` where they stood.

    Raises:
        InstructionError: for a limit that cannot be kept, such as more than 100 % accuracy or a bound on milliseconds.
    """
    limits = Limits()
    rest: list[str] = []
    done = 0
    for match in _NUMBER.finditer(text):
        if match.start() < done:
            continue
        span = _read(text, done, match, limits)
        if span is not None:
            rest += [text[done : span[0]], "|"]
            done = span[1]
    return limits, " ".join("".join([*rest, text[done:]]).split())


def _read(text: str, done: int, match: re.Match[str], limits: Limits) -> tuple[int, int] | None:
    """Reads the limit at one number into `limits`; its span, or None if the number is no limit."""
    before, after, end = text[done : match.start()], text[match.end() :], match.end()
    value = Fraction(match[0])
    if span := _read_range(before, after, done, end, value, limits):
        return span
    outcome = _OUT_OF.match(after)
    if outcome and int(outcome["all"]) and (outcome["out"] or re.match(_ACCURACY, after[outcome.end() :])):
        value *= Fraction(100, int(outcome["all"]))
        end, after = end + outcome.end() - len(" percent"), " percent" + after[outcome.end() :]
    comparator = _BEFORE.search(before)
    bound: Bound | None = None
    strict = False
    if comparator:
        bound, strict = _COMPARATORS[comparator["word"]]
        if comparator["negated"] and bound != "around":
            bound, strict = ("minimum" if bound == "maximum" else "maximum"), not strict
    suffix, after, end = _suffix(after, end)
    subject = before[: comparator.start()] if comparator else before
    unit = _unit(subject, after, value, bounded=bool(comparator or suffix))
    if unit is None:
        if bound in ("maximum", "minimum") and _UNSUPPORTED.match(after):
            raise InstructionError(
                "cannot keep this limit",
                where=f"'{text[done + comparator.start() : end] if comparator else match[0]}'",
                got=f"a limit on '{after.split()[0]}'",
                expected="a limit on parameters, memory (kB) or accuracy",
                remedy="give the exact layers as an architecture, such as weightgen/cnn?channels=8,16",
            )
        return None
    kind, length = unit
    percent = after.startswith(" percent")
    after, end = after[length:], end + length
    if suffix is None:
        suffix, after, end = _suffix(after, end)
        if kind in ("accuracy", "parameters") and (trailing := re.match(_ACCURACY, after)) and percent:
            end += trailing.end()
    if bound is None or bound == "around":
        bound = suffix or bound
    if kind in ("accuracy", "error"):
        # Without a percent sign 95 is 95 %, and 1.2 is a share that cannot be.
        _store_accuracy(value / 100 if percent or value >= 10 else value, bound, strict, limits, error=kind == "error")
    else:
        if kind == "byte":
            value /= BYTES_PER_WEIGHT
            if bound is None and re.search(r"(?:^| )(?:in|into)(?: (?:a|the|just|only|some))* $", before):
                bound = "maximum"
        exact = re.search(r"(?:exactly|precisely)(?: \w+)? $", before) is not None
        _store_parameters(value, bound, strict, limits, exact=exact)
    return done + (comparator.start() if comparator else len(before)), end


def _read_range(before: str, after: str, done: int, end: int, low: Fraction, limits: Limits) -> tuple[int, int] | None:
    """Reads "between 2000 and 4000 parameter" and "2000 to 4000 parameter"; `low` is the first number."""
    second = _SECOND.match(after)
    if second is None or (second["word"] == "and" and not re.search(r"(?:^| )between(?: [^\d ]+){0,2} $", before)):
        return None
    high = Fraction(second["number"])
    if low < 100 and high >= max(1000, 1000 * low):
        low *= 1000  # "2 to 4k"
    rest = after[second.end() :]
    unit = _unit(before, rest, high, bounded=True)
    if unit is None:
        return None
    kind, length = unit
    percent = rest.startswith(" percent") or high > 1
    if kind == "error":
        limits.accurate(1 - (high / 100 if percent else high))
    elif kind == "accuracy":
        limits.accurate(low / 100 if percent else low)
    else:
        each = BYTES_PER_WEIGHT if kind == "byte" else 1
        limits.at_least(math.ceil(low / each))
        limits.at_most(math.floor(high / each))
    opening = re.search(r"(?:(?:between|from|range of|range)(?: [^\d ]+){0,2} )?$", before)
    return done + (opening.start() if opening else len(before)), end + second.end() + length


def _suffix(after: str, end: int) -> tuple[Bound | None, str, int]:
    """A bound that stands behind its number: "5000 or fewer"."""
    for pattern, bound in _AFTER:
        if found := pattern.match(after):
            return bound, after[found.end() :], end + found.end()
    return None, after, end


def _unit(before: str, after: str, value: Fraction, *, bounded: bool) -> tuple[str, int] | None:
    """What a number counts (parameters, byte, accuracy or error) and how long its unit is; None for anything else."""
    if re.match(r" percent(?= |$)", after):
        length = len(" percent")
        if _OTHER_PERCENT.match(after):
            return None
        if found := re.match(_ERROR, after[length:]):
            return "error", length + found.end()
        if _ERROR_BEFORE.search(before):
            return "error", length
        found = re.match(_ACCURACY, after[length:])
        return "accuracy", length + (found.end() if found else 0)
    if re.match(r" byte(?= |$)", after):
        return "byte", len(" byte")
    found = re.match(_PARAMETERS, after)
    if found and not (value < 100 and found[0].endswith(("number", "value"))):
        return "parameters", found.end()
    if value <= 100:
        for kind, behind, ahead in (("accuracy", _ACCURACY, _ACCURACY_BEFORE), ("error", _ERROR, _ERROR_BEFORE)):
            found = re.match(behind, after)
            if found and (kind == "accuracy" or value < 1):
                return kind, found.end()
            if ahead.search(before) and (kind == "accuracy" or value < 1):
                return kind, 0
    if _UNSUPPORTED.match(after) or _COUNTED.match(after):
        return None
    if _PARAMETERS_BEFORE.search(before) and (bounded or value >= 100):
        return "parameters", 0
    if bounded and value >= 100:
        return "parameters", 0
    if bounded and 0 < value < 1:
        return "accuracy", 0
    return None


def _store_accuracy(share: Fraction, bound: Bound | None, strict: bool, limits: Limits, *, error: bool) -> None:
    if error:
        share = 1 - share
        bound = {"maximum": "minimum", "minimum": "maximum"}.get(bound or "", bound)  # type: ignore[assignment]
    if bound == "maximum":
        raise InstructionError(
            "accuracy can only be given a floor",
            got=f"a ceiling of {float(100 * share):.6g} %",
            expected="such as 'at least 95 % accurate'",
        )
    if strict and share == 1:
        raise InstructionError("no network has such an accuracy", got="above 100 %", expected="0 to 100 %")
    limits.accurate(share)


def _store_parameters(value: Fraction, bound: Bound | None, strict: bool, limits: Limits, *, exact: bool) -> None:
    if bound == "maximum":
        limits.at_most(math.ceil(value) - 1 if strict else math.floor(value))
    elif bound == "minimum":
        limits.at_least(math.floor(value) + 1 if strict else math.ceil(value))
    else:
        low, high = (value, value) if exact else (value * AROUND_FACTORS[0], value * AROUND_FACTORS[1])
        limits.at_least(math.ceil(low))
        limits.at_most(math.floor(high))
