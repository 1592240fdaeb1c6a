"""Mentions: which phrases of a vocabulary a canonical text holds, and which of them it rules out."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NEGATORS = """not|no|non|never|without|nothing|except|except for|excluding|avoid|avoiding|unlike|nor|neither|
instead of|rather than|other than|anything but|everything but|all but|opposed to|in place of|in lieu of|away from|
skip|drop|forget|ditch|minus|lacking|sans|hate|dislike|refuse|leave out|leaving out|steer clear of|stay clear of|
free of|different from"""
_LIGHT = """a|an|the|any|of|use|using|want|wanting|need|needed|have|having|be|being|is|it|that|this|those|these|one|
1|kind|sort|type|from|on|for|with|to|in|at|like|usual|standard|famous|full|original|regular|common|ordinary|anything|
something|give|giving|me|us|based|trained|made|built|about|really|necessarily|even|classic|well|known|please|work|
contain|contains|containing|include|including|involve|involving|rely|relying|pick|choose|take|taking|necessary|
interested|do|so|too|very|single|style|ever|all"""
_FORBIDDEN = """not (?:be )?(?:allowed|wanted|welcome|permitted|acceptable|used|required|needed|an option|ok|okay|
what)|forbidden|banned|excluded|unwanted|prohibited|off limit|out of the question|off the table|be avoided|
to be avoided"""


def _any(alternatives: str) -> str:
    return "|".join(" ".join(part.split()) for part in alternatives.split("|"))


_TASK_SIZES = "small|smaller|big|bigger|large|larger|tiny|little"
_BEFORE = {
    sizes: re.compile(rf"(?:^| )(?:{_any(_NEGATORS)}) (?:(?:{_any(_LIGHT)}{'|' + _TASK_SIZES if sizes else ''}) )*$")
    for sizes in (False, True)
}
_AFTER = re.compile(
    r"^(?: (?:layer|network|net|kind|type|one|image|data|dataset|digit))?"
    r"(?: free(?! of)(?= |$)|(?: (?:is|are|be|were|should|must|may|will|would|do|please))*"
    rf" (?:{_any(_FORBIDDEN)})(?= |$))"
)


@dataclass(frozen=True)
class Mention:
    """One phrase found in a text.

    Args:
        kind: what the phrase is about, such as `task` or `family`.
        value: what it means, such as `mnist` or `cnn`.
        phrase: the words.
        start: index of its first token.
        end: index after its last token.
        negated: whether the text rules it out.
    """

    kind: str
    value: object
    phrase: str
    start: int
    end: int
    negated: bool = False


class Phrases:
    """Phrases and their meanings; the longest phrase wins where several begin at a word."""

    def __init__(self) -> None:
        self._meanings: dict[str, tuple[str, object]] = {}
        self._longest = 1

    def add(self, kind: str, meanings: Mapping[object, Iterable[str]]) -> None:
        """Adds canonical phrases; one that is there already keeps its first meaning."""
        for value, phrases in meanings.items():
            for phrase in phrases:
                self._meanings.setdefault(phrase, (kind, value))
                self._longest = max(self._longest, phrase.count(" ") + 1)

    def words(self) -> frozenset[str]:
        """All words of all phrases."""
        return frozenset(word for phrase in self._meanings for word in phrase.split())

    def find(self, text: str) -> list[Mention]:
        """All mentions in a canonical text, from left to right, without overlap."""
        tokens = text.split()
        mentions: list[Mention] = []
        start = 0
        while start < len(tokens):
            for end in range(min(start + self._longest, len(tokens)), start, -1):
                phrase = " ".join(tokens[start:end])
                if phrase in self._meanings:
                    kind, value = self._meanings[phrase]
                    negated = _negated(tokens, kind, start, end, mentions)
                    mentions.append(Mention(kind, value, phrase, start, end, negated))
                    start = end - 1
                    break
            start += 1
        return mentions


def _negated(tokens: list[str], kind: str, start: int, end: int, earlier: list[Mention]) -> bool:
    before = "".join(token + " " for token in tokens[:start])
    if _BEFORE[kind in ("task", "other task")].search(before):
        return True
    if _AFTER.match("".join(" " + token for token in tokens[end:])):
        return True
    if not earlier or not earlier[-1].negated or earlier[-1].kind.split()[-1] != kind.split()[-1]:
        return False
    # "no 28×28 MNIST", "neither MNIST nor CIFAR", "no CNN or convnet": the negation reaches on.
    between = tokens[earlier[-1].end : start]
    return not between or (between[0] in {"or", "nor", "/"} and set(between[1:]) <= {"a", "an", "any", "the", "other"})
