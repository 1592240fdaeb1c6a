"""resolve(): a free-worded prompt → a Request, or an error that says what can be asked."""

import difflib
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightgen.errors import InstructionError
from weightgen.instructions import vocabulary
from weightgen.instructions.classes import read_part
from weightgen.instructions.layers import read_depth
from weightgen.instructions.limits import read_limits
from weightgen.instructions.mentions import Mention, Phrases
from weightgen.instructions.request import FAMILY_TEXTS, Constraints, Request
from weightgen.instructions.wording import canonical
from weightgen.registry import unknown_name

MAXIMUM_LENGTH = 2000
"""Characters of a prompt; nobody means more, and every one costs time."""

_NOTHING_ELSE = "not any other"
_SUBSET = re.compile(r"even-odd|\d(v\d)+")


def resolve(
    prompt: str,
    tasks: Mapping[str, Sequence[str]],
    task: str | None = None,
    architecture: str | None = None,
) -> Request:
    """What a prompt asks for.

    Args:
        prompt: in free wording; typing errors, case, plurals and hyphens do not matter.
        tasks: task → the phrases that mean it, as in `vocabulary.VOCABULARY`.
        task: the task, if it is given beside the prompt; one of `tasks` or a class subset such as `mnist/3v8`.
        architecture: a recipe, if one is given beside the prompt.

    Raises:
        InstructionError: if the prompt is empty, names none of the tasks or several, asks for something that cannot be
            had, or contradicts itself, `task` or `architecture`.
        UnknownNameError: if `task` is not known.
    """
    if not prompt.strip():
        raise InstructionError("the prompt is empty", expected=_choices(tasks, ""))
    if len(prompt) > MAXIMUM_LENGTH:
        raise InstructionError(
            "the prompt is too long", got=f"{len(prompt):,} characters", expected=f"at most {MAXIMUM_LENGTH:,}"
        )
    lexicon = _lexicon(tuple((name, tuple(phrases)) for name, phrases in tasks.items()))
    text = canonical(prompt, lexicon.known, lexicon.targets)
    limits, text = read_limits(text)
    depth, text = read_depth(text)
    mentions = lexicon.phrases.find(text)
    family = _family(mentions, text, architecture)
    constraints = Constraints(
        maximum_parameters=limits.high,
        minimum_parameters=limits.low,
        minimum_accuracy=limits.accuracy,
        family=family,  # type: ignore[arg-type]
        depth=depth,
        size=_size(mentions, text.split()),  # type: ignore[arg-type]
        activation=_activation(mentions, text.split()),
        layering=_layering(mentions, text.split()),  # type: ignore[arg-type]
    )
    if architecture is not None:
        _check_architecture(architecture, constraints)
    name = _task(prompt, text, mentions, tasks, lexicon, task)
    return Request(prompt, name, architecture, constraints)


@dataclass(frozen=True)
class _Lexicon:
    phrases: Phrases
    known: frozenset[str]
    targets: frozenset[str]
    """The known words that misspelt ones are corrected to: those of things that can be asked for."""
    meanings: dict[str, tuple[tuple[str, ...], bool]]
    """Canonical phrase → the tasks that list it, and whether it is a hint only."""
    digit_tasks: tuple[str, ...]


@functools.lru_cache(maxsize=8)
def _lexicon(tasks: tuple[tuple[str, tuple[str, ...]], ...]) -> _Lexicon:
    owners: dict[str, list[str]] = {}
    hints: set[str] = set()
    for name, listed in tasks:
        for phrase in (name, *listed):
            written = canonical(phrase.removesuffix("?"))
            if name not in owners.setdefault(written, []):
                owners[written].append(name)
            if phrase.endswith("?"):
                hints.add(written)
    meanings = {phrase: (tuple(names), phrase in hints) for phrase, names in owners.items()}
    phrases = Phrases()
    phrases.add("task", {phrase: [phrase] for phrase in meanings})
    for kind, table in (
        ("activation", vocabulary.ACTIVATIONS),
        ("other task", {_NOTHING_ELSE: vocabulary.OTHER_TASKS}),
        ("other family", {_NOTHING_ELSE: vocabulary.OTHER_FAMILIES}),
        ("family", vocabulary.FAMILIES),
        ("layering", vocabulary.LAYERINGS),
        ("size", vocabulary.SIZES),
    ):
        phrases.add(kind, {value: [canonical(phrase) for phrase in listed] for value, listed in table.items()})
    single = [*meanings, *(phrase for listed in vocabulary.FAMILIES.values() for phrase in listed)]
    targets = {word for word in (*single, *vocabulary.CORRECTED_WORDS) if word.isalpha() and len(word) >= 4}
    digit_tasks = tuple(name for name, listed in tasks if vocabulary.DIGIT_WORD in listed)
    return _Lexicon(phrases, phrases.words() | targets, frozenset(targets), meanings, digit_tasks)


def _task(
    prompt: str,
    text: str,
    mentions: list[Mention],
    tasks: Mapping[str, Sequence[str]],
    lexicon: _Lexicon,
    given: str | None,
) -> str:
    """The task a prompt names, which `given` may make definite but not contradict."""
    for mention in mentions:
        if mention.kind == "other task" and not mention.negated:
            raise InstructionError(
                f"no task for '{mention.phrase}'", where=f"'{_short(prompt)}'", expected=_choices(tasks, text)
            )
    if size := re.search(r"(?<![^ ])(\d{1,4})x(\d{1,4})(?! (?:filter|kernel|conv\w*|window|stride))(?![^ ])", text):
        known = any(mention.phrase == size[0] for mention in mentions)
        if not known and int(size[1]) > 7:
            raise InstructionError(
                f"no task with images of {size[1]} × {size[2]} pixels",
                where=f"'{_short(prompt)}'",
                expected=_choices(tasks, text),
            )
    positive: dict[str, list[str]] = {"definite": [], "hint": [], "shared": []}
    excluded: set[str] = set()
    for mention in mentions:
        if mention.kind != "task":
            continue
        names, hint = lexicon.meanings[mention.phrase]
        if mention.negated:
            # "not the MNIST digits" rules out MNIST, not digits.
            if len(names) == 1 and not hint:
                excluded.update(names)
            continue
        if mention.phrase in ("number", "figure") and text.split()[mention.end : mention.end + 1] == ["of"]:
            continue  # "a small number of weights"
        positive["hint" if hint else "definite" if len(names) == 1 else "shared"] += names
    part = read_part(text)
    if part:
        positive["shared"] += lexicon.digit_tasks
    definite = [name for name in tasks if name in positive["definite"]]
    base, slash, given_part = (given or "").partition("/")
    if given is not None:
        if given not in tasks and not (base in lexicon.digit_tasks and slash and _SUBSET.fullmatch(given_part)):
            raise unknown_name("task", given, [*tasks, *(f"{name}/3v8" for name in lexicon.digit_tasks)])
        if given in tasks:
            base, given_part = given, ""
        other = [name for name in definite if name != base]
        if (other and base not in definite) or base in excluded - set(definite):
            raise InstructionError(
                "the prompt and the task contradict each other",
                where=f"'{_short(prompt)}'",
                got=f"task '{given}'",
                expected=f"'{other[0]}'" if other else f"another task than '{base}'",
                remedy="leave the task out, or change the prompt",
            )
    else:
        base = _choose_task(prompt, text, mentions, tasks, lexicon, positive, definite, excluded)
    if part and given_part and sorted(part) != sorted(given_part):
        raise InstructionError(
            "the prompt and the task contradict each other",
            where=f"'{_short(prompt)}'",
            got=f"task '{given}'",
            expected=f"'{base}/{part}'",
        )
    part = given_part or part
    return f"{base}/{part}" if part and base in lexicon.digit_tasks else base


def _choose_task(
    prompt: str,
    text: str,
    mentions: list[Mention],
    tasks: Mapping[str, Sequence[str]],
    lexicon: _Lexicon,
    positive: dict[str, list[str]],
    definite: list[str],
    excluded: set[str],
) -> str:
    if len(definite) > 1:
        named = [
            mention.phrase
            for mention in mentions
            if mention.kind == "task" and not mention.negated and len(lexicon.meanings[mention.phrase][0]) == 1
        ]
        raise InstructionError(
            "the prompt names several tasks",
            where=f"'{_short(prompt)}'",
            got=" and ".join(f"'{phrase}'" for phrase in dict.fromkeys(named)),
            expected=f"one of: {', '.join(definite)}",
        )
    pool = definite or [
        name for level in ("hint", "shared") for name in tasks if name in positive[level] and name not in excluded
    ]
    # A picture's size alone does not say what is on it: "8x8 pictures of zebras" is no task of ours.
    if pool and not positive["shared"] and (stranger := _stranger(text, mentions, lexicon)):
        raise InstructionError(f"no task for '{stranger}'", where=f"'{_short(prompt)}'", expected=_choices(tasks, text))
    if not pool:
        raise InstructionError(
            "the prompt names no known task", where=f"'{_short(prompt)}'", expected=_choices(tasks, text)
        )
    return pool[0]


_OBJECT = re.compile(
    r"(?:(?:image|picture|photo|scan|thumbnail|bitmap|drawing|photograph)(?: (?:of|showing|with))|(?:recogni[sz]|"
    r"classify|detect|identify|spot|distinguish|predict|diagnos|categori[sz])(?:e|ing|ting|s)?(?= ))"
    r"(?: (?:a|an|the|some|single|individual|which|what|whether|small|tiny|different|various|hand))* ([a-z]+)"
)


def _stranger(text: str, mentions: list[Mention], lexicon: _Lexicon) -> str | None:
    """The thing to be recognised, where nothing but a picture's size or a hint speaks for a task."""
    certain = [
        mention
        for mention in mentions
        if mention.kind == "task"
        and not lexicon.meanings[mention.phrase][1]
        and not any(letter.isdigit() for letter in mention.phrase)
    ]
    if certain:
        return None
    words = {word for mention in mentions if mention.kind != "size" for word in mention.phrase.split()}
    for found in _OBJECT.finditer(text):
        if found[1] not in words and found[1] not in vocabulary.GENERIC_WORDS:
            return found[1]
    return None


def _family(mentions: list[Mention], text: str, architecture: str | None) -> str | None:
    own = architecture is None or architecture.startswith("weightgen/")
    for mention in mentions:
        if mention.kind == "other family" and not mention.negated and own:
            raise InstructionError(
                f"no networks of the kind '{mention.phrase}'", expected=f"one of: {', '.join(FAMILY_TEXTS.values())}"
            )
    said = [mention for mention in mentions if mention.kind == "family"]
    wanted = {mention.value for mention in said if not mention.negated}
    unwanted = {mention.value for mention in said if mention.negated} - wanted
    if len(wanted) > 1:
        if all(mention.phrase in vocabulary.LAYER_PHRASES for mention in said if mention.value == "mlp"):
            return "cnn"
        if _alternatives(said, text.split()):
            return None
        phrases = {mention.value: mention.phrase for mention in said if not mention.negated}
        raise InstructionError(
            "the prompt asks for two kinds of network",
            got=" and ".join(f"'{phrases[family]}'" for family in sorted(phrases, key=str)),
            expected="one of them",
        )
    if wanted:
        return str(wanted.pop())
    left = [family for family in FAMILY_TEXTS if family not in unwanted]
    return left[0] if unwanted and len(left) == 1 else None


def _size(mentions: list[Mention], tokens: list[str]) -> str | None:
    wanted: dict[str, str] = {}
    unwanted: set[str] = set()
    for mention in mentions:
        if mention.kind != "size" or not _of_network(mention, tokens) or _indifferent(mention, tokens):
            continue
        if mention.negated:
            unwanted.add(str(mention.value))
        else:
            wanted[str(mention.value)] = mention.phrase
    if not wanted and unwanted == {"large"}:
        return "small"  # "not too big"; what is not small may be of any other size
    if len(wanted) > 1:
        raise InstructionError(
            "the prompt asks for two sizes",
            got=" and ".join(f"'{wanted[size]}'" for size in sorted(wanted)),
            expected="small or large",
        )
    return next(iter(wanted), None)


def _of_network(mention: Mention, tokens: list[str]) -> bool:
    """Whether a size word is said of the network: "small digit reader" is, "reader of small digits" is not."""
    chunk = []
    for token in tokens[mention.end :]:
        if token in vocabulary.CHUNK_ENDS or token in vocabulary.CLAUSE_ENDS:
            break
        chunk.append(token)
    if mention.value == "large" and chunk[:1] == ["enough"]:
        return False
    if not vocabulary.OTHER_NOUNS.intersection(chunk):
        return True
    return bool(vocabulary.NETWORK_NOUNS.intersection(chunk))


_NO_MATTER = re.compile(
    r"(?:^| )(?:regardless of|irrespective of|no matter|whatever|how|not care|not mind)(?: \S+){0,3} $"
)
_UP_TO_YOU = re.compile(
    r"^(?: \S+){0,6} (?:not matter|irrelevant|unimportant|up to you|your (?:call|choice)|not important)(?= |$)"
)


def _indifferent(mention: Mention, tokens: list[str]) -> bool:
    """Whether the mention's clause says that it does not matter: "how wide or deep it is doesn't matter"."""
    start, end = mention.start, mention.end
    while start > 0 and tokens[start - 1] not in vocabulary.CLAUSE_ENDS:
        start -= 1
    while end < len(tokens) and tokens[end] not in vocabulary.CLAUSE_ENDS:
        end += 1
    before = "".join(token + " " for token in tokens[start : mention.start])
    after = "".join(" " + token for token in tokens[mention.end : end])
    return bool(_NO_MATTER.search(before) or _UP_TO_YOU.match(after))


_FIELD_NAMES = frozenset({"learning", "neural", "net", "network", "model", "learned"})


def _layering(mentions: list[Mention], tokens: list[str]) -> str | None:
    said = []
    for mention in mentions:
        if mention.kind != "layering" or _indifferent(mention, tokens):
            continue
        # "deep learning" and "deep network" are names of the field, "2 layers deep" is a number.
        before, after = tokens[: mention.start][-1:], tokens[mention.end :][:1]
        if mention.value == "most" and (before in (["layer"], ["#"]) or _FIELD_NAMES.issuperset(after or ["."])):
            continue
        other = {"most": "fewest", "fewest": "most"}[str(mention.value)]
        said.append(other if mention.negated else str(mention.value))
    if len(set(said)) > 1:
        raise InstructionError("the prompt asks for shallow and deep at once", expected="one of them")
    return said[0] if said else None


def _activation(mentions: list[Mention], tokens: list[str]) -> str | None:
    said = [mention for mention in mentions if mention.kind == "activation" and not _indifferent(mention, tokens)]
    wanted = sorted({str(mention.value) for mention in said if not mention.negated})
    if len(wanted) > 1:
        if _alternatives(said, tokens):
            return None
        raise InstructionError("the prompt asks for several activations", got=" and ".join(wanted), expected="one")
    if said and not wanted:
        raise InstructionError(
            "an activation can be asked for, not ruled out", got=f"'{said[0].phrase}'", expected="the activation wanted"
        )
    return wanted[0] if wanted else None


def _alternatives(said: list[Mention], tokens: list[str]) -> bool:
    """Whether a choice is left: "a CNN or an MLP"."""
    return any("or" in tokens[left.end : right.start] for left, right in itertools.pairwise(said))


def _check_architecture(architecture: str, constraints: Constraints) -> None:
    """An explicit recipe must not contradict what the prompt says in plain words."""
    name, _, query = architecture.partition("?")
    options: dict[str, Any] = dict(part.partition("=")[::2] for part in query.split("&") if part)
    family = name.removeprefix("weightgen/")
    if family not in FAMILY_TEXTS or family == name:
        return
    checks = [("family", constraints.family, family), ("activation", constraints.activation, options.get("activation"))]
    layers = options.get("channels" if family == "cnn" else "hidden")
    if layers is not None:
        checks.append(("depth", constraints.depth, len([width for width in layers.split(",") if width])))
    for what, said, found in checks:
        if said is not None and found is not None and said != found:
            raise InstructionError(
                "the prompt and the architecture contradict each other",
                where=what,
                got=f"'{architecture}'",
                expected=f"{said}, as the prompt says",
                remedy="leave the architecture out, or change the prompt",
            )


def _choices(tasks: Mapping[str, Sequence[str]], text: str) -> str:
    """What can be asked, nearest first."""
    words = text.split()

    def nearness(name: str) -> float:
        known = {word for phrase in (name, *tasks[name]) for word in phrase.lower().split() if len(word) > 3}
        return max((difflib.SequenceMatcher(None, word, other).ratio() for word in words for other in known), default=0)

    # Sorting is stable, so equally near tasks stay in the order in which they are listed.
    nearest = sorted(tasks, key=lambda name: -round(nearness(name), 1))[:6]
    texts = [f"{name} ({tasks[name][0]})" if tasks[name] else name for name in nearest]
    subsets = [f"{name}/3v8 and {name}/even-odd" for name in nearest if vocabulary.DIGIT_WORD in tasks[name]][:1]
    return f"one of: {', '.join(texts)}" + (f", or a part such as {subsets[0]}" if subsets else "")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "…"
