import pytest

from ste_jax.plan.chips import CHIPS, parse_slice, topology_name


@pytest.mark.parametrize(
    ("name", "chips", "topology"),
    [
        ("v6e-8", 8, "v6e:2x4"),
        ("v5e-16", 16, "v5e:4x4"),
        ("v5litepod-16", 16, "v5e:4x4"),
        ("v5p-8", 4, "v5p:2x2x1"),
        ("v5p-128", 64, "v5p:4x4x4"),
    ],
)
def test_names_of_slices(name, chips, topology):
    assert parse_slice(name)[1] == chips
    assert topology_name(name) == topology


def test_shapes_hold_as_many_chips_as_they_say():
    for chip in CHIPS.values():
        for count, shape in chip.shapes.items():
            product = 1
            for side in shape.split("x"):
                product *= int(side)
            assert product == count


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v6e-12", "v6e counts chips: v6e-1, v6e-4"),
        ("v5p-9", "v5p counts cores, two a chip: v5p-8"),
        ("tpu", "wants a name like"),
    ],
)
def test_slices_that_do_not_exist(name, message):
    with pytest.raises(ValueError, match=message):
        parse_slice(name)
