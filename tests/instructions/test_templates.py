import random

import pytest

from weightgen.errors import InstructionError
from weightgen.instructions import VOCABULARY, resolve, sentence, sentences

TASKS = ["digits", "mnist", "digits/even-odd", "mnist/3v8", "mnist/1v4v7"]


@pytest.mark.parametrize("task", TASKS)
def test_sentences_are_many_and_distinct(task):
    texts = [one.text for one in sentences(task, 3000)]
    assert len(set(texts)) == 3000


def test_a_seed_gives_the_same_sentences():
    assert sentences("mnist", 50, 3) == sentences("mnist", 50, 3)
    assert sentences("mnist", 50, 3) != sentences("mnist", 50, 4)


@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_is_resolved_to_what_it_was_made_for(task):
    for one in sentences(task, 150, seed=5):
        request = resolve(one.text, VOCABULARY)
        assert (request.task, request.constraints.family) == (one.task, one.family), one.text


def test_a_sentence_asks_for_all_that_is_given():
    source = random.Random(0)
    for _ in range(100):
        text = sentence(source, "mnist", "cnn", parameters=5000, depth=3, size="small", accuracy=0.95)
        constraints = resolve(text, VOCABULARY).constraints
        assert constraints.maximum_parameters in (4999, 5000), text
        asked = (constraints.depth, constraints.size, constraints.minimum_accuracy, constraints.minimum_parameters)
        assert asked == (3, "small", 0.95, None), text


def test_a_task_without_templates_is_refused():
    with pytest.raises(InstructionError, match="no templates"):
        sentences("cifar10", 1)
