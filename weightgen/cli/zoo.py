"""`weightgen zoo …`: folders of networks that can be asked questions."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weightgen.cli.output import print_csv, print_json, progress, table

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
    columns: str = "",
    csv: bool = False,
    json: bool = False,
    explain: bool = False,
) -> None:
    """List the networks for which an expression holds.

    Fields: name, id, task, architecture, family, format, parameters, tensors, zeros, non_finite, origin, run, split,
    tag, parent, metrics.NAME (on the test split), metrics.SPLIT.NAME, and any hyperparameter by its name.
    Operators: = != < <= > >= in between like glob, is known, has tensor 'NAME' with shape (64, 3, *, *),
    matches 'WORDS', joined by and, or, not, parentheses.

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
    columns
        What to show, separated by commas, such as name,metrics.accuracy,hyperparameters.seed.
    csv
        Print CSV.
    json
        Print JSON.
    explain
        Show the SQL and how SQLite goes about it.
    """
    from weightgen.zoo import Zoo

    found = Zoo.open(zoo).query(expression).order_by(*filter(None, order.split(",")))
    found = found if limit is None else found.limit(limit)
    if explain:
        return print(found.explain())
    if json:
        return print_json([row.to_json() for row in found])
    _print_rows(found, columns, csv)


COLUMNS = ["id", "name", "task", "architecture", "parameters", "metrics"]


def _print_rows(found, columns: str, csv: bool) -> None:
    if csv or columns:
        records = list(found.records())
        names = columns.split(",") if columns else list(dict.fromkeys(name for record in records for name in record))
        cells = [[_cell(record, name) for name in names] for record in records]
        return print_csv(names, cells) if csv else table(f"{len(cells)} networks", names, cells)
    rows = [_cells(row.to_json()) for row in found]
    table(f"{len(rows)} networks", COLUMNS, rows)


def _cell(record: dict, name: str) -> object:
    value = record.get(name, record.get(f"hyperparameters.{name}"))
    return "" if value is None else value


def _cells(row: dict) -> list[str]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in row["metrics"].items())
    return [row["id"][:12], row["name"], row["task"] or "", row["architecture"], f"{row['parameters']:,}", metrics]


@app.command
def show(id: str, *, zoo: str = DEFAULT) -> None:
    """Print all that is known of one network, as JSON.

    Example: weightgen zoo show digits-mlp-32-32-s1017

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
def nearest(id: str, expression: str = "", *, zoo: str = DEFAULT, k: int = 10, json: bool = False) -> None:
    """List the networks that are nearest to one in the embedding space of weight statistics.

    Example: weightgen zoo nearest digits-mlp-32-32-s1017 "task = 'digits'" --k 5

    Parameters
    ----------
    id
        Its id, its name, the beginning of its id, or the path of a file of any known format.
    expression
        What must hold for those that are listed, as in `weightgen zoo query`.
    zoo
        A name on the shelf or a folder.
    k
        How many.
    json
        Print JSON.
    """
    from weightgen.formats import read
    from weightgen.zoo import Zoo

    to = read(id)[0].checkpoint if Path(id).exists() else id
    found = Zoo.open(zoo).query(expression).nearest(to, k)
    if json:
        return print_json([{**one.row.to_json(), "distance": one.distance} for one in found])
    rows = [[f"{one.distance:.6g}", *_cells(one.row.to_json())] for one in found]
    table(f"{len(found)} networks", ["distance", *COLUMNS], rows)


@app.command
def facets(*fields: str, where: str = "", zoo: str = DEFAULT, limit: int = 20, json: bool = False) -> None:
    """Count the networks by the values of fields.

    Example: weightgen zoo facets task architecture --where "metrics.accuracy > 0.95"

    Parameters
    ----------
    fields
        Fields as in `weightgen zoo query`; task, family, format and tag if none is given.
    where
        What must hold for those that are counted.
    zoo
        A name on the shelf or a folder.
    limit
        The most frequent so many of each.
    json
        Print JSON.
    """
    from weightgen.zoo import Zoo

    found = Zoo.open(zoo).query(where).facets(*(fields or ("task", "family", "format", "tag")), limit=limit)
    if json:
        return print_json(
            {
                name: [{"value": key, "count": number} for key, number in counts.items()]
                for name, counts in found.items()
            }
        )
    for name, counts in found.items():
        table(
            name,
            ["value", "networks"],
            [["unknown" if key is None else key, f"{number:,}"] for key, number in counts.items()],
        )


@app.command
def lineage(
    id: str = "",
    *,
    zoo: str = DEFAULT,
    infer: bool = False,
    where: str = "",
    save: bool = False,
    inferred: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Show what a network was made from and what was made from it, as a tree; or guess it from weights.

    Example: weightgen zoo lineage digits-mlp-32-32-s1017

    Parameters
    ----------
    id
        Its id, its name, or the beginning of its id.
    zoo
        A name on the shelf or a folder.
    infer
        List the edges that weights suggest, of the whole zoo, each with a confidence.
    where
        With --infer: what must hold for the networks that are compared.
    save
        With --infer: keep the guesses in the catalogue, apart from what was declared.
    inferred
        Show kept guesses too.
    out
        Write the graph in Graphviz's language to this file; .png, .svg or .pdf give a picture.
    json
        Print the edges as JSON.
    """
    from weightgen.zoo import Zoo
    from weightgen.zoo.drawing import draw

    opened = Zoo.open(zoo)
    if infer:
        return _print_guesses(opened, opened.infer_lineage(where, save), json)
    found = opened.lineage(id, inferred)
    if out is not None:
        print(draw(found, out))
    elif json:
        print_json({"id": found.id, "names": found.names, "edges": [vars(edge) for edge in found.edges]})
    else:
        print("\n".join(found.lines()))


def _print_guesses(zoo, edges: list, json: bool) -> None:
    if json:
        return print_json([vars(edge) for edge in edges])
    names = {row.id: row.name for row in zoo}
    rows = [[f"{edge.confidence:.2f}", names[edge.parent], names[edge.child]] for edge in edges]
    table(f"{len(edges)} edges that weights suggest", ["confidence", "parent", "child"], rows)


for _name, _place in {
    "ingest": "zoo_ingest", "freeze": "zoo_upkeep", "verify": "zoo_upkeep", "export": "zoo_upkeep",
    "remove": "zoo_upkeep", "gc": "zoo_upkeep",
}.items():  # fmt: skip
    app.command(f"weightgen.cli.{_place}:{_name}", name=_name)
