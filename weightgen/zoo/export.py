"""Networks and catalogues for other programs: plain safetensors, Hugging Face folders, Parquet."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from weightgen.checkpoint import Checkpoint
from weightgen.errors import MissingDataError, OutputError
from weightgen.storage import atomic, write_text

if TYPE_CHECKING:
    from weightgen.zoo.result import Query
    from weightgen.zoo.row import Row


def export_safetensors(checkpoint: Checkpoint, path: Path, force: bool = False) -> None:
    """Writes tensors under their own names; the architecture and the card stand in the metadata as text.

    Raises:
        OutputError: if the file exists and `force` is not set, or cannot be written.
    """
    from safetensors.torch import save_file

    _check_free(path, force)
    metadata = {
        "format": "pt",
        "architecture": str(checkpoint.architecture),
        "card": json.dumps(checkpoint.card.to_json()),
    }
    tensors = {name: tensor.contiguous().clone() for name, tensor in checkpoint.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def export_huggingface(row: "Row", folder: Path, force: bool = False) -> None:
    """Writes a folder with `model.safetensors`, `config.json` and a model card, `README.md`; whole or not at all.

    Raises:
        OutputError: if the folder exists and `force` is not set, or cannot be written.
    """
    _check_free(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}.", dir=folder.parent))
    try:
        checkpoint = row.load()
        export_safetensors(checkpoint, temporary / "model.safetensors")
        config = {"library_name": "weightgen", "architecture_recipe": row.architecture, "parameters": row.parameters}
        config["hyperparameters"] = row.hyperparameters
        write_text(temporary / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_text(temporary / "README.md", _model_card(row))
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError as error:
        raise OutputError("cannot write", where=folder, got=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_parquet(query: "Query", path: Path, force: bool = False) -> int:
    """Writes one record a network, as `Query.to_arrow` gives them, and returns how many.

    Raises:
        OutputError: if the file exists and `force` is not set, or cannot be written.
        MissingDataError: if pyarrow is not installed.
    """
    _check_free(path, force)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDataError("Parquet needs pyarrow", remedy="install it: pip install 'weightgen[tables]'") from error
    table = query.to_arrow()
    with atomic(path) as temporary:
        parquet.write_table(table, temporary)
    return table.num_rows


def _check_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise OutputError("the file exists", where=path, remedy="choose another name, or overwrite it with --force")


def _model_card(row: "Row") -> str:
    figures = "".join(f"| {name} | {value:.6g} |\n" for name, value in row.metrics.items())
    tags = ", ".join(("weightgen", *row.tags))
    return (
        f"---\nlibrary_name: weightgen\ntags: [{tags}]\n---\n\n# {row.name}\n\n"
        f"Architecture `{row.architecture}`, {row.parameters:,} parameters, task {row.task or 'unknown'}.\n\n"
        + (f"| metric | value |\n|---|---|\n{figures}" if figures else "")
    )
