"""Named errors: each is one line that says what, where, got, expected and what to do."""


class WeightgenError(Exception):
    """An error that the user can act on; the command line prints it in one line and exits with 1.

    Args:
        what: what went wrong, in one clause.
        where: the file, option, tensor or field it concerns.
        got: what was found there.
        expected: what should have been there.
        remedy: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        parts = [what]
        if where is not None:
            parts.append(f"in {where}")
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if remedy is not None:
            parts.append(remedy)
        super().__init__("; ".join(" ".join(part.split()) for part in parts))


class UnknownNameError(WeightgenError):
    """A name that no registry entry, task, column or tensor bears."""


class DuplicateNameError(WeightgenError):
    """A name that is taken already."""


class ArchitectureError(WeightgenError):
    """A recipe that cannot be read or built, or tensors that do not fit it."""


class CorruptFileError(WeightgenError):
    """A file whose content is not what its header or digest promises."""


class MissingDataError(WeightgenError):
    """A data set or artefact that is not on this machine."""


class OutputError(WeightgenError):
    """A place that cannot be written, or that holds something already."""


class InstructionError(WeightgenError):
    """A prompt that names no task, or constraints that no network can meet."""


class RecipeError(WeightgenError):
    """A TOML recipe with a missing, unknown or impossible entry."""


class QueryError(WeightgenError):
    """A query expression that cannot be parsed or names an unknown field."""


class KernelError(WeightgenError):
    """A kernel that cannot be built or used, or arguments that do not fit one another."""
