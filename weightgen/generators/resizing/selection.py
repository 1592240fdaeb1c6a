"""Units kept without looking at what they do: evenly spaced, the first, or at random.

Weight selection (https://arxiv.org/abs/2311.18823) takes evenly spaced elements along every axis of a larger network;
here one choice for each axis group, so that what was computed together stays together.
"""

import numpy

from weightgen.generators.resizing.method import Method, Sizes, Source, by_selection, register
from weightgen.structure.resizing import Selections, even_selections


def _even(source: Source, sizes: Sizes) -> Selections:
    return even_selections(source.graph, sizes)


def _first(source: Source, sizes: Sizes) -> Selections:
    return {number: numpy.arange(size) for number, size in sizes.items()}


def _random(source: Source, sizes: Sizes) -> Selections:
    generator = numpy.random.RandomState(source.seed)
    return {
        number: numpy.sort(generator.permutation(source.graph.groups[number].size)[:size])
        for number, size in sorted(sizes.items())
    }


ADDRESS = "https://arxiv.org/abs/2311.18823"

register("select", Method("evenly spaced units (weight selection)", ADDRESS, by_selection(_even)))
register("slice", Method("the first units", "https://arxiv.org/abs/1812.08928", by_selection(_first)))
register("random", Method("units at random", "https://arxiv.org/abs/1810.05270", by_selection(_random)))
