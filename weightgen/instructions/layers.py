"""Numbers of layers in a prompt: "two hidden layers", "three convolutions"."""

import re

from weightgen.errors import InstructionError

_LAYERS = re.compile(
    r"(?<![^ ])(?P<number>\d+|a single|single|a couple of|couple of|couple|a pair of|pair of|double|no|without) "
    r"(?P<kind>(?:(?:more|stacked|separate|consecutive|successive|strided|plain|simple|small|big|wide|narrow|thin|"
    r"dense|linear|fully|connected|hidden|conv|convolution|convolutional|feed forward|intermediate|"
    r"inner|internal|learned|trainable|affine|full|real|or) )*"
    r"(?:layer|layered|deep|stage|block|(?:convolution|conv|hidden)(?! (?:network|net|model|classifier|neural|"
    r"nn)(?![^ ]))))"
    r"(?! (?:unit|neuron|node|channel|filter|feature)(?![^ ]))(?![^ ])"
)
_DEPTHS = re.compile(
    r"(?<![^ ])(?:(?:hidden )?depth(?: of)?|(?P<kind>hidden |convolutional |conv |dense )?layer(?: count(?: of)?)?|"
    r"number of (?:hidden |conv )?layer)(?: (?::|is|,|to|exactly))* (?P<number>\d{1,2})(?![^ ])"
    r"(?! (?:digit|class|v|vs|from|unit|neuron|node|channel|filter|feature|wide))"
)
_COUNTS = {"a single": 1, "single": 1, "a couple of": 2, "couple of": 2, "couple": 2, "a pair of": 2, "pair of": 2,
           "double": 2, "no": 0, "without": 0}  # fmt: skip
_BOUND = re.compile(
    r"(?:^| )(?:(?P<more>more than|over|above|beyond)|(?P<fewer>fewer than|less than|under|below)) (?:a |the )?$"
)


def read_depth(text: str) -> tuple[int | None, str]:
    """The number of layers, and the text with `#` where it stood.

    A bound is met by the number nearest to it: "at most two layers" is two, "more than two" is three.
    """
    said: list[tuple[int, str]] = []

    def take(found: re.Match[str]) -> str:
        kind = found["kind"] or ""
        alternatives = re.search(r"(?:^| )\d+ (?:or|to) $", text[: found.start()])
        if found["number"] in {"no", "without"} and "hidden layer" not in kind:
            return found[0]
        count = _COUNTS.get(found["number"])
        if count is None:
            count = int(found["number"])
        bound = _BOUND.search(text[: found.start()])
        if bound and not re.search(r"(?:^| )(?:no|not|never) $", text[: bound.start() + 1]):
            count += 1 if bound["more"] else -1
        if not alternatives:
            said.append((count, kind))
        return f"# {kind}".strip()

    text = re.sub(r"(?<![^ ])\d+ (?:or|to) (?=# )", "", _LAYERS.sub(take, text))
    text = _DEPTHS.sub(take, text)
    convolutions = [count for count, kind in said if "conv" in kind]
    counts = set(convolutions or [count for count, kind in said if "hidden" in kind] or [count for count, _ in said])
    if len(counts) > 1:
        raise InstructionError(
            "the prompt asks for several numbers of layers", got=" and ".join(map(str, sorted(counts))), expected="one"
        )
    return (counts.pop() if counts else None), text
