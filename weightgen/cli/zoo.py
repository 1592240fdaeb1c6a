"""`weightgen zoo …`: folders of networks that can be asked questions."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weightgen.cli.output import print_json, progress, table

app = App(name="zoo", help="Make, fill and question folders of networks.")

DEFAULT = "starter"


@app.command
def create(path: Path) -> None:
    """Make an empty zoo.

    Example: weightgen zoo create my-zoo

    Parameters
    ----------
    path
        The folder; it must not hold a zoo yet.
    """
    from weightgen.zoo import Zoo

    print(Zoo.create(path).path)


@app.command
def add(zoo: Path, *files: Path, json: bool = False) -> None:
    """Add checkpoint files; each is named after its file, and one that is there already is passed over.

    Example: weightgen zoo add my-zoo one.safetensors two.safetensors

    Parameters
    ----------
    zoo
        The zoo's folder.
    files
        Checkpoints that weightgen wrote.
    json
        Print the ids as JSON.
    """
    from weightgen.checkpoint import Checkpoint
    from weightgen.zoo import Zoo

    checkpoints = (Checkpoint.load(file) for file in files)
    ids = Zoo.open(zoo).add(checkpoints, name=[file.stem for file in files])
    print_json(ids) if json else print("\n".join(ids))


@app.command(name="list")
def list_(zoo: str = DEFAULT, *, json: bool = False) -> None:
    """List all networks of a zoo.

    Example: weightgen zoo list starter

    Parameters
    ----------
    zoo
        A name on the shelf or a folder.
    json
        Print JSON.
    """
    query("", zoo=zoo, json=json)


@app.command
def query(
    expression: str,
    *,
    zoo: str = DEFAULT,
    order: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    limit: int | None = None,
    json: bool = False,
) -> None:
    """List the networks for which an expression holds.

    Fields: name, id, task, architecture, family, parameters, origin, run, split, metrics.NAME (on the test split),
    metrics.SPLIT.NAME, hyperparameters.NAME. Operators: = != < <= > >= in, joined by and, or, not, parentheses.

    Example: weightgen zoo query "task = 'mnist' and metrics.accuracy > 0.95" --order -metrics.accuracy --limit 5

    Parameters
    ----------
    expression
        What must hold; "" for all.
    zoo
        A name on the shelf or a folder.
    order
        Fields to sort by, separated by commas; a minus before one puts the greatest first.
    limit
        At most so many.
    json
        Print JSON.
    """
    from weightgen.zoo import Zoo

    found = Zoo.open(zoo).query(expression).order_by(*filter(None, order.split(",")))
    rows = [row.to_json() for row in (found if limit is None else found.limit(limit))]
    print_json(rows) if json else table(f"{len(rows)} networks", COLUMNS, [_cells(row) for row in rows])


COLUMNS = ["id", "name", "task", "architecture", "parameters", "metrics"]


def _cells(row: dict) -> list[str]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in row["metrics"].items())
    return [row["id"][:12], row["name"], row["task"] or "", row["architecture"], f"{row['parameters']:,}", metrics]


@app.command
def show(id: str, *, zoo: str = DEFAULT) -> None:
    """Print all that is known of one network, as JSON.

    Example: weightgen zoo show digits-mlp-32-s017

    Parameters
    ----------
    id
        Its id, its name, or the beginning of its id.
    zoo
        A name on the shelf or a folder.
    """
    from weightgen.zoo import Zoo

    row = Zoo.open(zoo).row(id)
    shapes = row.load().shapes
    tensors = [{"name": name, "shape": shape, "dtype": kind} for name, (kind, shape) in shapes.items()]
    print_json({**row.to_json(), "card": row.card.to_json(), "tensors": tensors})


@app.command
def train(recipe: Path, *, out: Path | None = None, json: bool = False) -> None:
    """Train the populations of a recipe into a zoo; a training that was interrupted goes on where it was.

    Example: weightgen zoo train zoo/starter/recipe.toml --out my-starter

    Parameters
    ----------
    recipe
        A TOML file.
    out
        The zoo's folder; zoo/NAME with the recipe's name if not given.
    json
        Print the result as JSON.
    """
    from weightgen.zoo.recipe import read_recipe, train_recipe

    folder = out or Path("zoo") / read_recipe(recipe).name
    with progress("training") as update:
        zoo = train_recipe(recipe, folder, update)
    result = {"path": str(zoo.path), "networks": len(zoo), "digest": zoo.digest}
    print_json(result) if json else print(f"{result['path']}: {result['networks']:,} networks")


@app.command
def export(id: str, *, out: Path, zoo: str = DEFAULT, force: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Write one network of a zoo as a checkpoint file.

    Example: weightgen zoo export digits-mlp-32-s017 --out digits.safetensors

    Parameters
    ----------
    id
        Its id, its name, or the beginning of its id.
    out
        The file to write.
    zoo
        A name on the shelf or a folder.
    force
        Overwrite a file that is there.
    """
    from weightgen.zoo import Zoo

    Zoo.open(zoo).load(id).save(out, force)
    print(out)
