import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.errors import InstructionError, UnknownNameError, WeightgenError
from weightgen.instructions import VOCABULARY, resolve, sentences

_PATH = Path(__file__).with_name("paraphrases.py")
_SPECIFICATION = importlib.util.spec_from_file_location("paraphrases", _PATH)
_MODULE = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(_MODULE)
PARAPHRASES = _MODULE.PARAPHRASES


def understood(prompt, **given):
    return resolve(prompt, VOCABULARY, **given)


def constraints(prompt):
    return understood(prompt).constraints


def test_free_wording():
    wrong = []
    for prompt, task, family in PARAPHRASES:
        try:
            request = understood(prompt)
            got = request.task, request.constraints.family
        except InstructionError as error:
            got = str(error), None
        if got != (task, family):
            wrong.append((prompt, got))
    assert len(wrong) <= 0.05 * len(PARAPHRASES), wrong


def test_no_paraphrase_is_a_template_sentence():
    made = {one.text.casefold() for task in ("digits", "mnist", "mnist/3v8") for one in sentences(task, 3000)}
    phrases = {phrase.casefold() for listed in VOCABULARY.values() for phrase in listed}
    assert not (made | phrases) & {prompt.casefold() for prompt, _, _ in PARAPHRASES}


@pytest.mark.parametrize(
    "prompt, task",
    [
        ("MNIST", "mnist"),
        ("a net for mnsit", "mnist"),
        ("minst digits", "mnist"),
        ("Yann LeCun's numbers", "mnist"),
        ("28 × 28 digits", "mnist"),
        ("twenty-eight by twenty-eight digits", "mnist"),
        ("handwritten digits", "digits"),
        ("hand-written DIGIT reader", "digits"),
        ("8x8 scans", "digits"),
        ("scikit-learn's data", "digits"),
        ("a reader of tiny scans of handwriting", "digits"),
        ("tell threes from eights on MNIST", "mnist/3v8"),
        ("tell eights from threes on MNIST", "mnist/3v8"),
        ("is it a 3 or an 8, MNIST", "mnist/3v8"),
        ("even or odd digits", "digits/even-odd"),
        ("the parity of MNIST digits", "mnist/even-odd"),
        ("distinguish 4 and 9", "digits/4v9"),
        ("mnist 5-vs-6 convnet", "mnist/5v6"),
        ("0s, 1s and 2s of MNIST", "mnist/0v1v2"),
        ("digits 0 to 4 of MNIST", "mnist/0v1v2v3v4"),
        ("mnist digits from 0 to 9", "mnist"),
        ("no MNIST, the small digits", "digits"),
        ("handwritten digits, not the MNIST ones", "digits"),
        ("handwritten digits, but not scikit-learn's", "mnist"),
        ("not cats but MNIST", "mnist"),
        ("MNIST CNN with 8 and 16 filters", "mnist"),
        ("a small number of weights for MNIST", "mnist"),
    ],
)
def test_tasks(prompt, task):
    assert understood(prompt).task == task


@pytest.mark.parametrize(
    "prompt, family",
    [
        ("convolutonal netwrok for MNIST", "cnn"),
        ("ConvNets for MNIST", "cnn"),
        ("MNIST with learned filters", "cnn"),
        ("fully-connected, MNIST", "mlp"),
        ("a multi layer perceptron for MNIST", "mlp"),
        ("feed forward net for MNIST", "mlp"),
        ("MNIST, not convolutional", "mlp"),
        ("MNIST without any convolutions", "mlp"),
        ("MNIST, convolutions are not allowed", "mlp"),
        ("a digit reader that isn't an MLP", "cnn"),
        ("dense layers, no convolutions, MNIST", "mlp"),
        ("a CNN with a dense head for MNIST", "cnn"),
        ("a CNN or an MLP for MNIST", None),
        ("a network for MNIST", None),
    ],
)
def test_families(prompt, family):
    assert constraints(prompt).family == family


@pytest.mark.parametrize(
    "wording, low, high",
    [
        ("under 5k parameters", None, 4999),
        ("fewer than 10,000 weights", None, 9999),
        ("at most 3000 params", None, 3000),
        ("no more than 2.5K", None, 2500),
        ("between 2k and 4k", 2000, 4000),
        ("2-4k params", 2000, 4000),
        ("around 4k parameters", 3200, 4800),
        ("a 4k-parameter model", 3200, 4800),
        ("less than five thousand parameters", None, 4999),
        ("at least 4k", 4000, None),
        ("more than 2k and less than 4k weights", 2001, 3999),
        ("parameter count below 5k", None, 4999),
        ("5,000 or fewer parameters", None, 5000),
        ("must not exceed 5000 weights", None, 5000),
        ("nothing over 4k", None, 4000),
        ("exactly 1898 parameters", 1898, 1898),
        ("half a million parameters at most", None, 500_000),
        ("max 2.500 parameters", None, 2500),
        ("one hundred and fifty weights max", None, 150),
        ("under 20 kB", None, 4999),
        ("at most 20 KiB", None, 5120),
        ("fits in 20 kB", None, 5000),
        ("< 3k weights", None, 2999),
        ("5k+ parameters", 5000, None),
        ("60,000 images", None, None),
        ("two hidden layers", None, None),
    ],
)
def test_limits_on_parameters(wording, low, high):
    found = constraints(f"MNIST, {wording}")
    assert (found.minimum_parameters, found.maximum_parameters) == (low, high)
    found = constraints(f"a network {wording} for digits")
    assert (found.minimum_parameters, found.maximum_parameters) == (low, high)


@pytest.mark.parametrize(
    "wording, floor",
    [
        ("at least 95 % accurate", 0.95),
        ("accuracy above 0.93", 0.93),
        ("95% or better", 0.95),
        ("ninety-seven percent accuracy", 0.97),
        ("right 19 out of 20 times", 0.95),
        ("error below 5 %", 0.95),
        ("less than 3% mistakes", 0.97),
        ("96%+", 0.96),
        ("50 % smaller", None),
    ],
)
def test_floors_on_accuracy(wording, floor):
    assert constraints(f"MNIST, {wording}").minimum_accuracy == floor


@pytest.mark.parametrize(
    "wording, expected",
    [
        ("with two hidden layers", {"depth": 2}),
        ("three conv layers", {"depth": 3, "family": "cnn"}),
        ("with a single hidden layer of 32 units", {"depth": 1}),
        ("a 3-layer convnet", {"depth": 3}),
        ("one conv net", {"depth": None}),
        ("two conv layers and one dense layer", {"depth": 2, "family": "cnn"}),
        ("no more than two layers", {"depth": 2}),
        ("more than two layers", {"depth": 3}),
        ("a shallow MLP", {"layering": "fewest", "depth": None}),
        ("a deep MLP", {"layering": "most"}),
        ("a deep learning network", {"layering": None}),
        ("tiny", {"size": "small"}),
        ("as compact as possible", {"size": "small"}),
        ("big network", {"size": "large"}),
        ("not too big", {"size": "small"}),
        ("neither small nor large", {"size": None}),
        ("how large or deep it is doesn't matter", {"size": None, "layering": None}),
        ("large kernels, a small CNN", {"size": "small"}),
        ("a reader of small digits", {"size": None}),
        ("with leaky ReLU", {"activation": "leaky_relu"}),
        ("tanh activations", {"activation": "tanh"}),
        ("GELU", {"activation": "gelu"}),
    ],
)
def test_shape_words(wording, expected):
    found = constraints(f"{wording}, MNIST")
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("prompt", ["", "   ", "\n", "x" * 2001])
def test_nothing_and_too_much(prompt):
    with pytest.raises(InstructionError):
        understood(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "a network that recognises cats",
        "CIFAR-10",
        "speech",
        "spoken digits",
        "Fashion-MNIST",
        "EMNIST letters",
        "handwritten digits and letters",
        "8x8 pictures of zebras",
        "32x32 digits",
        "licence plate numbers",
        "anything but MNIST",
        "make me a small network",
        "asdf qwerty",
        "digital photos of the sea",
    ],
)
def test_something_else_is_an_error_that_names_what_can_be_asked(prompt):
    with pytest.raises(InstructionError) as caught:
        understood(prompt)
    assert "digits (" in str(caught.value) and "mnist (" in str(caught.value)


@pytest.mark.parametrize(
    "prompt",
    [
        "MNIST under 0 parameters",
        "MNIST between 5k and 2k parameters",
        "MNIST, max 3k params, min 5k params",
        "MNIST above 100 % accuracy",
        "MNIST with 120% accuracy",
        "MNIST with at most 90% accuracy",
        "MNIST in less than 100 ms",
        "MNIST 8x8",
        "a convolutional perceptron for MNIST",
        "transformer for MNIST",
        "a big small network for MNIST",
        "MNIST with relu and tanh",
        "tell a 3 from a 3 on MNIST",
        "distinguish 12 from 13 on MNIST",
        "tell 3 from the rest on MNIST",
        "MNIST with two hidden layers and three hidden layers",
    ],
)
def test_contradictions_and_impossible_wishes(prompt):
    with pytest.raises(InstructionError):
        understood(prompt)


def test_what_is_given_beside_the_prompt_decides():
    assert understood("make me a small network", task="mnist").task == "mnist"
    assert understood("handwritten digits", task="mnist").task == "mnist"
    assert understood("tell threes from eights", task="mnist").task == "mnist/3v8"
    assert understood("a network", task="mnist/even-odd").task == "mnist/even-odd"
    request = understood("a CNN for MNIST", architecture="weightgen/cnn?channels=8,16")
    assert request.architecture == "weightgen/cnn?channels=8,16"
    assert understood("a ResNet for MNIST", architecture="timm/resnet18").architecture == "timm/resnet18"


@pytest.mark.parametrize(
    "prompt, given",
    [
        ("MNIST", {"task": "digits"}),
        ("not MNIST", {"task": "mnist"}),
        ("cats", {"task": "mnist"}),
        ("threes from eights", {"task": "mnist/1v7"}),
        ("an MLP for MNIST", {"architecture": "weightgen/cnn"}),
        ("MNIST, three conv layers", {"architecture": "weightgen/cnn?channels=8,16"}),
        ("MNIST with tanh", {"architecture": "weightgen/cnn?activation=relu"}),
    ],
)
def test_what_is_given_must_not_contradict_the_prompt(prompt, given):
    with pytest.raises(InstructionError):
        understood(prompt, **given)


def test_an_unknown_task_is_named_with_the_near_ones():
    with pytest.raises(UnknownNameError, match="mnist"):
        understood("a network", task="mnits")


def test_tasks_of_ones_own():
    tasks = {**VOCABULARY, "cifar10": ("small photographs of ten kinds of thing", "cifar 10", "photo of animal")}
    assert resolve("a CNN for CIFAR-10", tasks).task == "cifar10"
    assert resolve("a CNN for cifar10", tasks).task == "cifar10"
    only = {"mnist": VOCABULARY["mnist"]}
    assert resolve("handwritten digits", only).task == "mnist"


WORDS = (
    "mnist", "digits", "not", "no", "3", "8", "or", "from", "under", "over", "5k", "between", "and", "%", "accuracy",
    "layers", "two", "cnn", "mlp", ",", ".", "8x8", "to", "parameters", "a",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_any_text_is_understood_or_refused_with_a_named_error(prompt):
    try:
        request = understood(prompt)
    except WeightgenError as error:
        assert "\n" not in str(error)
    else:
        assert request.task.partition("/")[0] in VOCABULARY
        assert request.describe() == understood(prompt).describe()
