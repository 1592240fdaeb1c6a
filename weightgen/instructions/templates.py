"""Instruction sentences made from templates and synonyms, to train an instruction encoder on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from weightgen.errors import InstructionError
from weightgen.instructions.request import FamilyName, Size

DATA: dict[str, tuple[str, ...]] = {
    "digits": (
        "handwritten digits", "hand-written digits", "the handwritten digits of scikit-learn", "scikit-learn digits",
        "the sklearn digits", "8x8 digits", "8x8 handwritten digits", "8 × 8 handwritten digits",
        "8 by 8 digit images", "digits of 8×8 pixels", "sklearn's digits data set", "handwritten numerals",
        "handwritten numbers", "tiny scans of digits", "tiny 8x8 scans of handwriting", "the load_digits data",
        "low-resolution digits", "64-pixel digits", "the small scikit-learn digits, not MNIST,", "digits",
    ),
    "mnist": (
        "MNIST", "mnist", "the MNIST digits", "MNIST images", "handwritten MNIST digits", "the MNIST data set",
        "MNIST handwritten digits", "28x28 digits", "28×28 handwritten digits", "28 by 28 digit images",
        "digits of 28 × 28 pixels", "LeCun's handwritten digits", "Yann LeCun's digits", "784-pixel digits",
        "M-NIST numerals", "the MNIST benchmark", "the 60,000 images of MNIST", "MNIST, not the scikit-learn digits,",
    ),
}  # fmt: skip
"""Task → what its data is called."""

NETWORKS: dict[FamilyName | None, tuple[str, ...]] = {
    None: ("network", "neural network", "net", "model", "classifier", "neural net", "image classifier"),
    "mlp": (
        "MLP", "mlp", "multilayer perceptron", "multi-layer perceptron", "perceptron", "fully connected network",
        "fully-connected net", "dense network", "dense neural network", "feed-forward network", "feedforward net",
        "network of dense layers", "model without convolutions", "network, not convolutional,",
        "network of fully connected layers",
    ),
    "cnn": (
        "CNN", "cnn", "convnet", "ConvNet", "conv net", "convolutional network", "convolutional neural network",
        "convolutional net", "convolutional classifier", "network of convolutions", "model with convolutional filters",
        "network with conv kernels", "conv model", "convolutional model, no MLP,",
    ),
}  # fmt: skip
"""Family → what its networks are called."""

SIZES: dict[Size, tuple[str, ...]] = {
    "small": ("small", "tiny", "compact", "lightweight", "little", "slim", "very small"),
    "large": ("large", "big", "huge", "high-capacity", "hefty", "very large"),
}

_OPENINGS = (
    "", "", "", "give me ", "I want ", "I need ", "make ", "please make ", "build me ", "generate ", "create ",
    "could you generate ", "weights for ", "can I have ", "produce ", "design ", "please give me ",
    "we are looking for ",
)  # fmt: skip
_READS = (
    "that reads {data}", "that recognises {data}", "that recognizes {data}", "that classifies {data}", "for {data}",
    "to classify {data}", "to recognise {data}", "trained on {data}", "which can read {data}", "for reading {data}",
    "for the task of classifying {data}", "able to recognise {data}", "which labels {data}",
)  # fmt: skip
_TELLS = (
    "that tells {first} from {second} on {data}", "that can tell {first} and {second} apart in {data}",
    "to distinguish {first} and {second} in {data}", "that distinguishes {first} from {second} on {data}",
    "to separate {first} from {second} with {data}", "for {first} versus {second} on {data}",
    "for {first} vs {second}, {data}", "that decides between {first} and {second} on {data}",
    "to discriminate {first} against {second} using {data}",
)  # fmt: skip
_PARITY = (
    "that tells even from odd on {data}", "for even or odd on {data}", "that says whether {data} are even or odd",
    "to decide the parity of {data}", "for even versus odd in {data}", "to separate even and odd numbers on {data}",
    "that sorts {data} into odd and even",
)  # fmt: skip
_PARAMETERS = (
    "under {count} {unit}", "with fewer than {count} {unit}", "with at most {count} {unit}",
    "with no more than {count} {unit}", "of up to {count} {unit}", "with less than {count} {unit}",
    "below {count} {unit}", "with a budget of {count} {unit}", "with {count} {unit} or less",
    "not exceeding {count} {unit}",
)  # fmt: skip
_DEPTHS: dict[FamilyName | None, tuple[str, ...]] = {
    None: ("with {depth} layer{s}", "{depth} layer{s} deep"),
    "mlp": ("with {depth} hidden layer{s}", "of {depth} hidden layer{s}", "with {depth} layer{s}"),
    "cnn": ("with {depth} conv layer{s}", "with {depth} convolution{s}", "of {depth} convolutional layer{s}"),
}
_ACCURACIES = (
    "at least {percent} % accurate", "with an accuracy above {percent}%", "{percent}% accuracy or better",
    "with at least {percent} percent accuracy", "with accuracy of at least {share}", "reaching {percent}%",
)  # fmt: skip
_UNITS = ("parameters", "weights", "params", "trainable parameters")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")


@dataclass(frozen=True)
class Sentence:
    """One instruction and what it asks for; `family` is None where it leaves that open."""

    text: str
    task: str
    family: FamilyName | None


def sentence(
    source: random.Random,
    task: str,
    family: FamilyName | None = None,
    *,
    parameters: int | None = None,
    depth: int | None = None,
    size: Size | None = None,
    accuracy: float | None = None,
) -> str:
    """One instruction that asks for all that is given and nothing else.

    Args:
        source: where the choices come from; the same state gives the same sentence.
        task: `digits`, `mnist` or a class subset of one of them: `mnist/3v8`, `digits/even-odd`.
        family: the family of networks to ask for, None for any.
        parameters: an upper limit on parameters.
        depth: the number of hidden layers or convolutions.
        size: a word for the size.
        accuracy: a floor on accuracy, 0…1.

    Raises:
        InstructionError: if there are no templates for the task.
    """
    base, _, part = task.partition("/")
    if base not in DATA:
        raise InstructionError(
            f"no templates for the task '{task}'", expected=f"one of: {', '.join(DATA)}, or a class subset of one"
        )
    purpose = _purpose(source, source.choice(DATA[base]), part)
    noun = source.choice(NETWORKS[family])
    if size is not None:
        noun = f"{source.choice(SIZES[size])} {noun}"
    wishes = []
    if parameters is not None:
        wishes.append(source.choice(_PARAMETERS).format(count=_count(source, parameters), unit=source.choice(_UNITS)))
    if depth is not None:
        number = _WORDS[depth] if depth < 10 and source.random() < 0.6 else str(depth)
        wishes.append(source.choice(_DEPTHS[family]).format(depth=number, s="" if depth == 1 else "s"))
    if accuracy is not None:
        percent = f"{100 * accuracy:.4g}"
        wishes.append(source.choice(_ACCURACIES).format(percent=percent, share=f"{accuracy:.4g}"))
    source.shuffle(wishes)
    article = source.choice(("a ", "a ", "one ", "some "))
    if article == "a " and noun.startswith(("image", "MLP")):
        article = "an "
    order = source.random()
    if order < 0.6:
        text = source.choice(_OPENINGS) + ", ".join([f"{article}{noun} {purpose}", *wishes])
    elif order < 0.8:
        text = source.choice(_OPENINGS) + " ".join([f"{article}{noun}", " and ".join(wishes), purpose])
    else:
        text = ": ".join([source.choice(("task", "wanted", "request", "job")), f"{noun} {purpose}"])
        text += "".join(f"; {wish}" for wish in wishes)
    text = " ".join(text.replace(",,", ",").split()).rstrip(",")
    if source.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + source.choice(("", "", ".", "!", ", please", " thanks"))


def sentences(task: str, count: int, seed: int = 0) -> list[Sentence]:
    """`count` different sentences for a task, with every other wish drawn at random.

    Raises:
        InstructionError: if there are no templates for the task, or not so many sentences.
    """
    source = random.Random(f"{task} {seed}")
    found: dict[str, Sentence] = {}
    for _ in range(20 * count + 100):
        if len(found) >= count:
            break
        family = source.choice((None, "mlp", "cnn"))
        text = sentence(
            source,
            task,
            family,
            parameters=_maybe(source, 0.4, (1000, 2000, 2500, 3000, 4000, 5000, 8000, 10_000, 20_000, 50_000)),
            depth=_maybe(source, 0.25, (1, 2, 3, 4)),
            size=_maybe(source, 0.4, ("small", "large")),
            accuracy=_maybe(source, 0.2, (0.8, 0.9, 0.92, 0.95, 0.96, 0.97, 0.98, 0.985)),
        )
        found.setdefault(text, Sentence(text, task, family))
    if len(found) < count:
        raise InstructionError(
            "the templates are exhausted", where=f"task {task}", got=f"{len(found):,} sentences", expected=f"{count:,}"
        )
    return list(found.values())


def _maybe(source: random.Random, share: float, values: Sequence) -> object:
    return source.choice(values) if source.random() < share else None


def _purpose(source: random.Random, data: str, part: str) -> str:
    if not part:
        return source.choice(_READS).format(data=data)
    if part == "even-odd":
        return source.choice(_PARITY).format(data=data)
    numbers = [int(text) for text in part.split("v")]
    numerals = [str(number) for number in range(10)]
    forms = source.choice((_PLURALS, _PLURALS, numerals, [f"{numeral}s" for numeral in numerals]))
    names = [forms[number] for number in source.sample(numbers, len(numbers))]
    if len(names) > 2:
        return f"that tells {', '.join(names[:-1])} and {names[-1]} apart on {data}"
    return source.choice(_TELLS).format(first=names[0], second=names[1], data=data)


def _count(source: random.Random, number: int) -> str:
    """5000 as "5000", "5,000", "5k" or "five thousand"."""
    forms = [str(number), f"{number:,}"]
    if number % 100 == 0:
        forms += [f"{number / 1000:g}k", f"{number / 1000:g}K", f"{number / 1000:g} thousand"]
    if number % 1000 == 0 and number < 10_000:
        forms.append(f"{_WORDS[number // 1000]} thousand")
    return source.choice(forms)
