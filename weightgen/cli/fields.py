"""`weightgen fields …`: signals stored as tri-planes are fitted, classified, segmented and looked at."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from weightgen.cli.output import print_json, progress, table

app = App(name="fields", help="Store shapes as tri-planes; classify, segment and render them.")


@app.command
def fit(
    *paths: str,
    out: Path,
    kind: Literal["udf", "sdf", "occupancy"] = "udf",
    resolution: int = 32,
    channels: int = 8,
    steps: int = 400,
    points: int = 1024,
    target: float | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Fit a field to each mesh, point cloud and voxel grid, many at once, and keep them in a zoo.

    Folders are classes; folders named train, validation and test are splits. A killed fitting goes on where it was.

    Example: weightgen fields fit meshes --kind udf --out zoo/shapes

    Parameters
    ----------
    paths
        Files, folders, or procedural:COUNT for shapes that are made up.
    out
        The zoo's folder; it is made if it is not there.
    kind
        Unsigned distance (of any surface), signed distance or occupancy (of solids).
    resolution
        Rows and columns of each plane.
    channels
        Features of each cell.
    steps
        Optimiser steps, at most.
    points
        Points a field sees in a step.
    target
        Stop a field that is this good: an IoU, or for udf a Chamfer distance.
    seed
        Of everything random.
    json
        Print the report as JSON.
    """
    from weightgen.processors.field_recipes import fit_paths

    with progress("fitting") as update:
        report = fit_paths(
            paths, out, kind, resolution=resolution, channels=channels, steps=steps, points=points, target=target,
            seed=seed, progress=update,
        )  # fmt: skip
    print_json(report.to_json()) if json else print(report.text())


@app.command
def classify(
    zoo: Path,
    *,
    processor: Path | None = None,
    epochs: int = 60,
    seed: int = 0,
    force: bool = False,
    json: bool = False,
) -> None:
    """Train a classifier on the fields of a zoo, keep it and say how good it is; or ask one that was trained.

    Example: weightgen fields classify zoo/shapes

    Parameters
    ----------
    zoo
        A folder of fields.
    processor
        The classifier's folder: asked if it is there, else trained. FOLDER/classifier within the zoo if not given.
    epochs
        Passes over the training fields.
    seed
        Of everything random.
    force
        Train anew even if there is one.
    json
        Print the classes as JSON.
    """
    from weightgen.processors.field_recipes import classify_zoo

    with progress("classifier") as update:
        answer = classify_zoo(zoo, processor, epochs=epochs, seed=seed, force=force, progress=update)
    if json:
        print_json(answer.to_json())
        return
    print(answer.title())
    table("test fields", ["name", "class", "found", "probability"], answer.rows())


@app.command
def segment(
    zoo: Path,
    name: str,
    *,
    out: Path,
    processor: Path | None = None,
    epochs: int = 60,
    seed: int = 0,
    points: int = 4096,
) -> None:
    """Label the parts of a field's surface; the segmenter is trained on the zoo's procedural fields if there is none.

    Example: weightgen fields segment zoo/made procedural-0-00003-chair --out chair.ply

    Parameters
    ----------
    zoo
        A folder of fields.
    name
        The field.
    out
        The coloured points, a .ply file.
    processor
        The segmenter's folder: asked if it is there, else trained. FOLDER/segmenter within the zoo if not given.
    epochs
        Passes over the training fields.
    seed
        Of everything random.
    points
        How many points are labelled.
    """
    from weightgen.processors.field_recipes import segment_field

    with progress("segmenter") as update:
        print(segment_field(zoo, name, out, processor, epochs=epochs, seed=seed, points=points, progress=update))


@app.command
def render(
    zoo: Path, name: str | None = None, *, out: Path, side: int = 128, limit: int = 48, azimuth: float = 35.0
) -> None:
    """Draw one field (.png), or turn it into a mesh (.ply); without a name, a contact sheet of a zoo.

    Example: weightgen fields render zoo/shapes --out sheet.png

    Parameters
    ----------
    zoo
        A folder of fields.
    name
        The field; all of them on one sheet if not given.
    out
        A .png file for a picture, or a .ply file for the surface of one field.
    side
        Rows and columns of a picture; cells along each axis for a mesh.
    limit
        How many fields a sheet shows; of each class as many.
    azimuth
        From where it is seen, in degrees around the vertical.
    """
    from weightgen.processors.field_recipes import render_fields

    with progress("rendering") as update:
        print(render_fields(zoo, out, name, side=side, limit=limit, azimuth=azimuth, progress=update))
