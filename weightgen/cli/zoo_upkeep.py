"""`weightgen zoo verify`, `remove`, `gc`, `freeze` and `export`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weightgen.cli.output import print_json, progress
from weightgen.errors import CorruptFileError

DEFAULT = "starter"
Flag = Annotated[bool, Parameter(negative="")]


def verify(zoo: str = DEFAULT, *, json: Flag = False) -> None:
    """Read every tensor of a zoo and hold it against its digest; exits with 1 if one is damaged.

    Example: weightgen zoo verify starter

    Parameters
    ----------
    zoo
        A name on the shelf or a folder.
    json
        Print JSON.
    """
    from weightgen.zoo import Zoo
    from weightgen.zoo.upkeep import verify as check

    with progress("verifying") as update:
        found = check(Zoo.open(zoo), update)
    text = f"{found.networks:,} networks read, {len(found.damaged):,} damaged, {len(found.orphans):,} orphaned files"
    print_json(found.to_json()) if json else print(text)
    if found.damaged:
        key, reason = next(iter(found.damaged.items()))
        raise CorruptFileError(f"{len(found.damaged):,} networks are damaged", where=key, got=reason)


def remove(zoo: str, *ids: str, json: Flag = False) -> None:
    """Take networks out of a zoo; `weightgen zoo gc` then gives their space back.

    Example: weightgen zoo remove my-zoo 9e909c0278fe

    Parameters
    ----------
    zoo
        The zoo's folder.
    ids
        Ids, names or beginnings of ids.
    json
        Print the removed ids as JSON.
    """
    from weightgen.zoo import Zoo

    removed = Zoo.open(zoo).remove(*ids)
    print_json(removed) if json else print("\n".join(removed))


def gc(zoo: str, *, age: float = 3600.0, json: Flag = False) -> None:
    """Give back the space of removed networks and of killed writers.

    Example: weightgen zoo gc my-zoo

    Parameters
    ----------
    zoo
        The zoo's folder.
    age
        Files that nothing refers to are kept for so many seconds: a writer may be about to enter them.
    json
        Print JSON.
    """
    from weightgen.zoo import Zoo
    from weightgen.zoo.upkeep import gc as collect

    with progress("collecting") as update:
        result = collect(Zoo.open(zoo), age, update)
    text = f"{result['files']:,} files removed, {result['bytes']:,} bytes less, {result['repacked']:,} networks moved"
    print_json(result) if json else print(text)


def freeze(name: str, expression: str = "", *, zoo: str, json: Flag = False) -> None:
    """Keep the list of the networks for which an expression holds under a name, and print its hash.

    Example: weightgen zoo freeze good-digits "task = 'digits' and metrics.accuracy > 0.95" --zoo my-zoo

    Parameters
    ----------
    name
        The snapshot's name.
    expression
        What must hold, as in `weightgen zoo query`.
    zoo
        The zoo's folder.
    json
        Print JSON.
    """
    from weightgen.zoo import Zoo

    found = Zoo.open(zoo).query(expression)
    result = {"name": name, "digest": found.freeze(name), "networks": found.count()}
    print_json(result) if json else print(f"{name}: {result['networks']:,} networks, {result['digest']}")


def export(
    what: str,
    *,
    out: Path,
    zoo: str = DEFAULT,
    safetensors: Flag = False,
    huggingface: Flag = False,
    parquet: Flag = False,
    force: Flag = False,
) -> None:
    """Write one network of a zoo as a checkpoint file or for other programs, or the catalogue as Parquet.

    Example: weightgen zoo export digits-mlp-32-32-s1017 --out digits.safetensors

    Parameters
    ----------
    what
        The network's id, its name, or the beginning of its id; with --parquet an expression, "" for all.
    out
        The file, or folder, to write.
    zoo
        A name on the shelf or a folder.
    safetensors
        Plain safetensors, tensors under their own names.
    huggingface
        A folder with model.safetensors, config.json and a model card.
    parquet
        One record for each network of the expression.
    force
        Overwrite what is there.
    """
    from weightgen.zoo import Zoo
    from weightgen.zoo import export as write

    opened = Zoo.open(zoo)
    if parquet:
        write.export_parquet(opened.query(what), out, force)
    elif huggingface:
        write.export_huggingface(opened.row(what), out, force)
    elif safetensors:
        write.export_safetensors(opened.load(what), out, force)
    else:
        opened.load(what).save(out, force)
    print(out)
