"""Free wording → a canonical text: lower case, singular words, plain decimal numbers, typing errors put right."""

import difflib
import re
import unicodedata
from collections.abc import Collection
from decimal import Decimal

from weightgen.instructions.vocabulary import PROTECTED_WORDS

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS: dict[str, int] = (
    {word: value for value, word in enumerate(_UNITS)}
    | {word: 10 * value for value, word in enumerate(_TENS, 2)}
    | {"zeros": 0, "zeroes": 0, "nought": 0, "naught": 0, "noughts": 0, "sixes": 6}
    | {f"{word}s": value for value, word in enumerate(_UNITS[1:10], 1)}
)
_SCALES: dict[str, int] = {"hundred": 100, "thousand": 1000, "grand": 1000, "million": 10**6, "billion": 10**9}
_GLUED_SCALES = _SCALES | {"k": 1000, "m": 10**6, "mio": 10**6, "b": 10**9}
_BYTES: dict[str, int] = {
    "byte": 1, "kb": 1000, "kbyte": 1000, "kilobyte": 1000, "kib": 1024, "kibibyte": 1024,
    "mb": 10**6, "mbyte": 10**6, "megabyte": 10**6, "mib": 2**20, "mebibyte": 2**20,
    "gb": 10**9, "gigabyte": 10**9, "gib": 2**30,
}  # fmt: skip

_REPLACEMENTS = (
    (r"[’‘`´]", "'"),
    (r"\bcan(?:'t|not)\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"'s\b", ""),
    (r"<=|≤|=<", " at most "),
    (r">=|≥|=>", " at least "),
    (r"<", " less than "),
    (r">", " more than "),
    (r"[~≈]", " around "),
    (r"%|\bper cent\b|\bpct\b", " percent "),
    (r"&", " and "),
    (r"(?<![a-z])px\b", " pixel "),
    (r"(?<=\d)\s*[×x*✕]\s*(?=\d)", " x "),
    (r"(?<=\d)(k?)\+", r"\1 or more "),
    (r"(\d[km]?)(?:[-–—]|\s*(?:\.\.+|…|–|—)\s*)(?=\d)", r"\1 to "),
    (r"(?<=\d)[,_ '\u00a0\u202f](?=\d{3}(?:\D|$))", ""),
    (r"\b([1-9]\d{0,2})\.(\d{3})(?=\s*-?(?:param|weight|trainable|learnable|coefficient))", r"\1\2"),
)
_TOKEN = re.compile(r"(?<!\S)-\d+(?:\.\d+)?|\d+(?:\.\d+)?(?:e\d{1,2}\b)?|\.\d+|[^\W\d_]+|[,.;:!?()]")


def canonical(text: str, known: Collection[str] = (), targets: Collection[str] = ()) -> str:
    """The canonical text of a prompt: tokens with one space between them.

    "Under FIVE-thousand parmeters on 28×28 scans" → `under 5000 parameter on 28x28 scan`.

    Args:
        text: as it was typed.
        known: words, in canonical form, that are right as they stand.
        targets: words, in canonical form, that misspelt words are corrected to.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]
    words: list[str] = []
    position = 0
    while position < len(tokens):
        number, used = _number(tokens, position)
        if number is None:
            words.append(_correct(singular(tokens[position][0]), known, targets))
            position += 1
            continue
        position += used
        if position < len(tokens):
            following, start, _ = tokens[position]
            glued = start == tokens[position - 1][2]
            if singular(following) in _BYTES:
                number, following = number * _BYTES[singular(following)], "byte"
                words += [_plain(number), "byte"]
                position += 1
                continue
            # "3s", "4th": an ending of the numeral, not a word of its own.
            if glued and following in {"s", "st", "nd", "rd", "th"}:
                position += 1
        words.append(_plain(number))
    joined = " ".join(words)
    joined = re.sub(r"\b1 (?:x|by) (\d+) (?:x|by) (\d+)\b", r"\1x\2", joined)
    joined = re.sub(r"\b(\d+)(?: pixel)? (?:x|by|time) (\d+)(?: (?:x|by) 1\b)?(?: pixel)?\b", r"\1x\2", joined)
    return joined


def singular(word: str) -> str:
    """A word without its plural ending; the same for words that only look plural, on both sides of a comparison."""
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word.removesuffix("s")


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")


def _correct(word: str, known: Collection[str], targets: Collection[str]) -> str:
    if not targets or len(word) < 4 or not word.isalpha():
        return word
    if word in known or word in targets or word in PROTECTED_WORDS:
        return word
    for near in difflib.get_close_matches(word, targets, n=3, cutoff=0.8):
        begins_alike = near[0] == word[0] or near[:2] == word[1::-1]
        if begins_alike and abs(len(near) - len(word)) <= (1 if len(near) < 8 else 2):
            return near
    return word


def _number(tokens: list[tuple[str, int, int]], position: int) -> tuple[Decimal | None, int]:
    """The number that begins at `position` and how many tokens it takes; (None, 0) if there is none."""
    words = [token[0] for token in tokens[position : position + 12]]
    if re.fullmatch(r"-?[\d.]+(?:e\d+)?", words[0]) and any(letter.isdigit() for letter in words[0]):
        value, used = Decimal(words[0]), 1
        if words[1:2] and words[1] in _GLUED_SCALES:
            glued = tokens[position + 1][1] == tokens[position][2]
            if glued or words[1] in _SCALES or words[1] == "k":
                return value * _GLUED_SCALES[words[1]], 2
        return value, used
    if words[0] == "half" and words[1:2] in (["a"], ["an"]) and words[2:3] and words[2] in _SCALES:
        return Decimal(_SCALES[words[2]]) / 2, 3
    if words[0] in {"a", "an"} and words[1:2] and words[1] in _SCALES:
        value, used = _spelled(["one", *words[1:]])
        return Decimal(value), used
    if words[0] not in _NUMBER_WORDS:
        return None, 0
    if words[1:4] == ["and", "a", "half"] and words[4:5] and words[4] in _SCALES:
        return (_NUMBER_WORDS[words[0]] + Decimal("0.5")) * _SCALES[words[4]], 5
    value, used = _spelled(words)
    return Decimal(value), used


def _spelled(words: list[str]) -> tuple[int, int]:
    """The value of leading number words ("two hundred and fifty thousand") and how many they are."""
    total = current = used = 0
    previous = ""
    while used < len(words):
        word = words[used]
        if word in _NUMBER_WORDS:
            value = _NUMBER_WORDS[word]
            joins = not previous or previous in _SCALES or (previous in _TENS and 0 < value < 10)
            if not joins:
                break
            current += value
        elif word == "hundred" and previous:
            current *= 100
        elif word in _SCALES and previous:
            total, current = total + current * _SCALES[word], 0
        elif word == "and" and previous == "hundred" and words[used + 1 : used + 2]:
            # "one hundred and fifty" is one number, "between one hundred and two hundred" is two.
            following = words[used + 1 : used + 3]
            if following[0] not in _NUMBER_WORDS or following[1:] == ["hundred"]:
                break
            used += 1
            continue
        else:
            break
        previous = word
        used += 1
    return total + current, used
