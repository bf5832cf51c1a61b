"""The flag --mesh of the commands that load a model without the configuration of a run."""

from absl import app, flags

MESH = flags.DEFINE_list(
    "mesh",
    ["1", "-1", "1"],
    "Sizes of the mesh axes data, fsdp and tensor. -1: the remaining devices.",
)


def mesh_shape() -> tuple[int, int, int]:
    """Returns the sizes that --mesh gives.

    Raises:
      UsageError: it is not three integers.
    """
    try:
        data, fsdp, tensor = map(int, MESH.value or ())
    except ValueError as error:
        raise app.UsageError(
            f"--mesh takes three whole numbers, such as 1,-1,8, not {','.join(MESH.value or ())}"
        ) from error
    return data, fsdp, tensor
