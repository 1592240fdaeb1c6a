"""Where a morphed network goes: a checkpoint file, or a folder that `from_pretrained` of transformers loads."""

import shutil
import tempfile
from pathlib import Path

from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, OutputError


def save(checkpoint: Checkpoint, path: Path, force: bool = False) -> None:
    """Writes a network, whole or not at all: a path that ends with .safetensors is a file, any other a folder.

    A folder holds the config and weights of a transformers model, and the checkpoint itself with its Card beside.

    Raises:
        OutputError: if it exists and `force` is not set.
        ArchitectureError: for a folder, if the network is none of transformers or its recipe is more than a config.
    """
    if path.suffix == ".safetensors":
        return checkpoint.save(path, force)
    base, sizes = checkpoint.architecture.without_group_sizes()
    if not base.family.startswith("transformers/") or sizes:
        raise ArchitectureError(
            "only models of transformers that a config describes are written as a folder", where=path,
            got=checkpoint.architecture, remedy="write a file whose name ends with .safetensors",
        )  # fmt: skip
    if path.exists() and not force:
        raise OutputError("the folder exists", where=path, remedy="choose another name, or overwrite it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        module = checkpoint.build()
        module.save_pretrained(made)  # type: ignore[operator]
        checkpoint.save(made / "weightgen.safetensors")
        if path.exists():
            shutil.rmtree(path)
        made.chmod(0o755)
        made.rename(path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
