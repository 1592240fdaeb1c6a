"""Class subsets in a prompt: "tell threes from eights", "even or odd"."""

import re

from weightgen.errors import InstructionError

_COUNTED = (
    r"(?! (?:# )?(?:layer|channel|epoch|bit|unit|neuron|node|pixel|filter|kernel|percent|head|step|feature|convolution|"
    r"(?:hidden|conv|convolutional|dense|fully connected) (?:layer|unit|neuron|node|channel|filter)|image|example|"
    r"sample|input|dimension\w*|class|classe|x|of (?:the )?(?:layer|channel))(?![^ ]))"
)
_DIGIT = (
    r"(?:(?:a|an|the|digit|number|numeral|handwritten|written|class|classe|"
    r"either) )*(?<![^ ])(\d{1,2})" + _COUNTED + r"(?![^ ])"
)
_JOINT = r" (?:, )?(?:apart from|and|or|v|vs|versus|against|from|to|through|thru|with|than|,)(?: (?:and|or|from))? "
_LIST = re.compile(rf"(?<![^ ]){_DIGIT}(?:{_JOINT}{_DIGIT})+(?![^ ])")
_JOINTS = frozenset({"and", "or", "v", "vs", "versus", "against", "from", "to", "through", "thru", "with"})
_VERBS = re.compile(
    r"(?:tell|distinguish|separat|discriminat|differentiat|sort|split|decid|differen|contrast|apart|between|versus|"
    r"only|just|digit|class|number|numeral|recogni|read|spot|whether|is it|identif|know|figure|keep|restrict|limit|"
    r"subset|pair)"
)
_PARITY = re.compile(
    r"(?<![^ ])(?:parity|odd|oddness|evenness|divisible by 2|multiple of 2|(?:is|are|it|be) even|even(?= [?.,;!]|$)|"
    r"even (?:digit|number|numeral|figure|one|1|or|and|v|vs))(?![^ ])"
)
_ONE_AGAINST_ALL = re.compile(
    r"(?<![^ ])\d (?:vs|versus|v|against|from) (?:all|every|each|any|the (?:rest|other)|rest|other)(?![^ ])"
)
_BEFORE_NUMBERS = re.compile(
    r"(?:channel|width|hidden|filter|unit|neuron|size|layer|kernel|stride|depth|scale)"
    r"(?: (?:of|:|,|with|is|are|be|to|from|per))* $"
)


def read_part(text: str) -> str | None:
    """The class subset a prompt speaks of, `3v8` or `even-odd`; None for all classes."""
    if _PARITY.search(text):
        return "even-odd"
    if _ONE_AGAINST_ALL.search(text):
        raise InstructionError(
            "one class against all others is no task",
            got=f"'{text}'",
            expected="classes to tell apart, such as 3 from 8, or even from odd",
        )
    for found in _LIST.finditer(text):
        numbers = [int(number) for number in re.findall(r"(?<![^ ])\d+(?![^ ])", found[0])]
        joints = _JOINTS.intersection(found[0].split())
        before = text[: found.start()]
        if _BEFORE_NUMBERS.search(before):
            continue
        opposed = bool(joints & {"v", "vs", "versus", "against", "from"})
        if max(numbers) > 9:
            if opposed:
                raise InstructionError("unknown classes", got=f"'{found[0]}'", expected="digits of 0 to 9")
            continue
        if not opposed and not joints and not _VERBS.search(before[-40:]):
            continue  # "8, 16, 32" says nothing of classes
        if joints & {"to", "through", "thru"} and len(numbers) == 2:
            numbers = list(range(min(numbers), max(numbers) + 1))
        chosen = sorted(set(numbers))
        if len(chosen) == 10:
            continue
        if len(chosen) < 2:
            raise InstructionError(
                "a class cannot be told from itself", got=f"'{found[0]}'", expected="two different digits"
            )
        return "v".join(map(str, chosen))
    return None
