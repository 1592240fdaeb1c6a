"""`weightgen train …`: tokenizers, generators and hypernetworks."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from weightgen.cli.output import progress

app = App(name="train", help="Train a tokenizer or a generator on a zoo.")


@app.command
def tokenizer(
    *sources: str,
    out: Path,
    zoo: str = "starter",
    steps: int = 1200,
    workers: int = 2,
    chunk: int = 8,
    quantiser: Literal["residual", "grouped", "scalar"] = "residual",
    levels: int = 3,
    codebook: int = 812,
    groups: int = 1,
    beam: int = 8,
    scaled: int = 128,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Train a WeightTokenizer: for any network, on the sources; without sources for the tasks of a zoo.

    A killed training goes on where it was.

    Example: weightgen train tokenizer zoo/starter resnet32.th --out tokenizers/general

    Example: weightgen train tokenizer --zoo zoo/starter --out tokenizers/starter

    Parameters
    ----------
    sources
        Zoos, of which the training runs are read, and checkpoints of any format.
    out
        The folder to write.
    zoo
        Without sources: a folder, or a name on the shelf.
    steps
        Without sources: optimiser steps for each task and architecture.
    workers
        Without sources: processes that train decoders side by side; they change nothing of the result.
    chunk
        Values a token.
    quantiser
        Residual codebooks, several side by side on parts of the chunk, or even steps of each value.
    levels
        Residual levels.
    codebook
        Codes a level; of a scalar quantiser the steps of a value.
    groups
        Parts of a chunk with codebooks of their own, of a grouped quantiser.
    beam
        Ways that the search for codes keeps.
    scaled
        Fewest values that share a scale.
    seed
        Of everything random.
    force
        Overwrite what is there.
    """
    from weightgen.generators.recipes import make_tokenizer
    from weightgen.generators.tokenizer_recipes import make_general

    with progress("tokenizer") as update:
        if sources:
            sizes = (quantiser, chunk, levels, codebook, groups, beam)
            print(make_general(sources, out, sizes, scaled=scaled, seed=seed, force=force, progress=update))
        else:
            print(make_tokenizer(zoo, out, steps=steps, seed=seed, workers=workers, force=force, progress=update))


@app.command
def igpg(
    *,
    zoo: str = "starter",
    tokenizer: str = "starter",
    out: Path,
    steps: int = 1000,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Train an IGPG generator on the codes of the training runs of a zoo.

    Example: weightgen train igpg --zoo zoo/starter --tokenizer tokenizers/starter --out checkpoints/starter

    Parameters
    ----------
    zoo
        A folder, or a name on the shelf.
    tokenizer
        A folder, or a name on the shelf.
    out
        The folder to write.
    steps
        Optimiser steps.
    seed
        Of everything random.
    force
        Overwrite what is there.
    """
    from weightgen.generators.recipes import make_igpg

    with progress("prior") as update:
        print(make_igpg(zoo, tokenizer, out, steps=steps, seed=seed, force=force, progress=update))


@app.command
def hypernetwork(recipe: Path, *, out: Path, force: bool = False) -> None:
    """Train a hypernetwork, on a task that its condition changes or on a zoo's networks; a killed training goes on.

    Example: weightgen train hypernetwork rotation.toml --out checkpoints/rotation

    Parameters
    ----------
    recipe
        A TOML file with task, architecture and [condition.NAME] tables.
    out
        The folder to write.
    force
        Overwrite what is there.
    """
    from weightgen.generators.hypernetwork_recipes import make_hypernetwork

    with progress("hypernetwork") as update:
        print(make_hypernetwork(recipe, out, force=force, progress=update))


@app.command
def neumeta(
    checkpoint: Path,
    *,
    task: str,
    out: Path,
    steps: int = 3000,
    widths: tuple[float, float] = (0.5, 1.0),
    learning_rate: float = 3e-3,
    positions: Literal["nested", "spread"] = "nested",
    hidden: int = 64,
    distillation: float = 0.0,
    scatter: float = 0.0,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Train a function that writes a checkpoint's network at any width; a killed training goes on.

    Example: weightgen train neumeta resnet20.safetensors --task cifar10 --out resnet20-any-width

    Parameters
    ----------
    checkpoint
        A checkpoint file, the network at its full size.
    task
        What the network is for.
    out
        The folder to write.
    steps
        Optimiser steps.
    widths
        The smallest and the largest factor of all widths that it is trained at.
    learning_rate
        The highest of the schedule.
    positions
        Whether a smaller network is the beginning of a larger one, or spread over it.
    hidden
        Width of the perceptron that adds to the grid; 0 for none.
    distillation
        Weight of the checkpoint's own answers, from 0 to 1, against the labels.
    scatter
        Share of steps that make narrower networks than were trained hold, such as 0.15.
    seed
        Of everything random.
    force
        Overwrite what is there.
    """
    from weightgen.generators.neumeta_recipes import make_neumeta

    with progress("neumeta") as update:
        options = {"widths": widths, "positions": positions, "hidden": hidden, "distillation": distillation}
        chosen = {"steps": steps, "scatter": scatter, "learning_rate": learning_rate, "seed": seed, "force": force}
        print(make_neumeta(checkpoint, task, out, progress=update, **options, **chosen))
