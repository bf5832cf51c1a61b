import numpy as np

from ste_jax.decode.packing import Packing


def _packing(**sizes: int) -> Packing:
    return Packing(**{"rows": 2, "positions": 64, "prompts": 6, "longest": 32, "slots": 9} | sizes)


def _prompts(count: int) -> list[list[int]]:
    """Returns prompts of which every second begins as the one before, half of the time with no more."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 50, rng.integers(1, 33)).tolist() for _ in range(count)]
    for i in range(1, count, 2):
        head = prompts[i - 1][: rng.integers(0, 33)]
        prompts[i] = [*head, *prompts[i][: 32 - len(head)]][: 32 if i % 4 == 1 else max(1, len(head))]
    return prompts


def test_every_prompt_can_be_read_off_its_row() -> None:
    packing, packed_indices = _packing(), {}
    for i, prompt in enumerate(_prompts(40)):
        if packed_index := packing.add(prompt):
            packing.assign(packed_index, i % 9, i % 2)
            packed_indices[packed_index] = (prompt, i % 9, i % 2)
    packed = packing.packed
    assert len(packed_indices) > 6
    for (row, number), (prompt, slot, prompt_index) in packed_indices.items():
        at = packed.gather_index[row, number, : len(prompt)]
        assert packed.tokens[row, at].tolist() == prompt
        assert packed.positions[row, at].tolist() == list(range(len(prompt)))
        assert packed.length[row, number] == len(prompt)
        assert (packed.slots[row, number], packed.prompt_index[row, number]) == (slot, prompt_index)
    # What no prompt took goes nowhere.
    assert (packed.slots == 9).sum() == packed.slots.size - len(packed_indices)


def test_a_position_stands_for_all_prompts_that_begin_so() -> None:
    packing = _packing(rows=1)
    packed_indices = [packing.add(prompt) for prompt in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4], [1, 2, 3])]
    assert packed_indices == [(0, 0), (0, 1), (0, 2), (0, 3)]
    packed = packing.packed
    assert packed.tokens[0, :6].tolist() == [1, 2, 3, 4, 5, 0]
    assert packed.gather_index[0, :4, :4].tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [0, 1, 2, 3], [0, 1, 2, 0]]
    # Back from the rows: each position is that of a prompt which has it.
    for index in range(5):
        number, position = divmod(int(packed.scatter_index[0, index]), 32)
        assert packed.gather_index[0, number, position] == index
        assert packed.positions[0, index] == position


def test_a_prompt_goes_to_the_row_that_has_most_of_it_and_has_room() -> None:
    packing = _packing(positions=8, prompts=3)
    assert packing.add([1, 2, 3]) == (0, 0)
    assert packing.add([7, 8, 9, 10, 11, 12]) == (1, 0)
    assert packing.add([7, 8, 9, 10, 13]) == (1, 1)
    assert packing.add([7, 8, 9, 10, 14, 15]) is None  # two more positions than its row has
    assert packing.add([1, 2, 4, 5]) == (0, 1)
    assert packing.add([1, 2]) == (0, 2)
    assert packing.add([1, 2]) is None  # three are in the row that has them, and the other one is full
