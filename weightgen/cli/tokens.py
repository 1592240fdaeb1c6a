"""`weightgen tokenize` and `weightgen detokenize`: networks to codes and back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from weightgen.cli.output import print_json
from weightgen.errors import CorruptFileError, OutputError


def tokenize(
    checkpoint: str,
    *,
    tokenizer: str | None = None,
    part: str | None = None,
    out: Path | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Turn a network into codes, and say what is lost.

    Example: weightgen tokenize digits.safetensors --out digits.tokens.safetensors

    Parameters
    ----------
    checkpoint
        A checkpoint of any format that is read, or a recipe such as timm/resnet18.
    tokenizer
        A folder, or a name on the shelf; without it the one named starter where it knows the architecture and task,
        else the one named general.
    part
        Which of the networks of a file that holds several.
    out
        Where to write the codes; nothing is written without it.
    force
        Overwrite what is there.
    json
        Print JSON.
    """
    from weightgen.formats.opening import open_network
    from weightgen.tokenizers import WeightTokenizer, tokenizer_for

    _check(out, force)
    network = open_network(checkpoint, part)
    loaded = tokenizer_for(network) if tokenizer is None else WeightTokenizer.from_pretrained(tokenizer)
    tokens = loaded.encode(network)
    if out is not None:
        tokens.save(out, network.card)
    result: dict[str, Any] = {"path": None if out is None else str(out), **loaded.measure(network, tokens)}
    result |= {"weights": "random"} if network.card.origin == "random" else {}
    if json:
        return print_json(result)
    print(", ".join(f"{name} {value}" for name, value in result.items() if value is not None))


def detokenize(
    tokens: Path, *, out: Path, tokenizer: str | None = None, force: bool = False, json: bool = False
) -> None:
    """Turn codes back into a network.

    Example: weightgen detokenize digits.tokens.safetensors --out again.safetensors

    Parameters
    ----------
    tokens
        A file of `weightgen tokenize`.
    out
        Where to write the network.
    tokenizer
        The tokenizer the codes were made with: a folder, or a name on the shelf; without it starter or general, as the
        codes are.
    force
        Overwrite what is there.
    json
        Print JSON.
    """
    from weightgen.checkpoint import Checkpoint
    from weightgen.tokenizers import WeightTokenizer, WeightTokens

    _check(out, force)
    read, card = WeightTokens.load(tokens)
    loaded = WeightTokenizer.from_pretrained(tokenizer or ("general" if read.tokenizer else "starter"))
    # What was measured on the network that was encoded does not hold for this one.
    network = Checkpoint(read.architecture, loaded.decode(read), replace(card, metrics=(), origin="decoded"))
    if network.non_finite():
        raise CorruptFileError("the codes decode to NaN or infinity", where=tokens)
    network.save(out, force=force)
    result = {"path": str(out), "architecture": str(network.architecture), "parameters": network.parameters}
    print_json(result) if json else print(f"{out}: {network.architecture}, {network.parameters:,} parameters")


def _check(out: Path | None, force: bool) -> None:
    if out is not None and out.exists() and not force:
        raise OutputError("--out exists already", where=out, remedy="choose another name, or overwrite it with --force")
