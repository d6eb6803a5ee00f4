"""The checker of linearizability: histories that are known, and all small ones by brute force."""

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import TypeAlias

import pytest

from wgmap_chaos.judges.linearizable import Finding, Operation, check, check_each

Asked: TypeAlias = tuple[str, int]  # ("write", value), ("read", 0), ("swap", 10 * old + new)
Op: TypeAlias = Operation[Asked, int]


class Register:
    """A register that begins with 0; a swap answers 1 where the old value was there, else 0."""

    initial = 0

    def step(self, state: int, asked: Asked, answered: int | None) -> tuple[bool, int]:
        kind, value = asked
        if kind == "read":
            return answered in (None, state), state
        if kind == "write":
            return True, value
        old, new = divmod(value, 10)
        return answered in (None, int(old == state)), new if old == state else state


def history(text: str) -> list[Op]:
    """Read lines such as ``w1 .---.`` (write), ``r1 ..--`` (read), ``s12+`` (swap 1 for 2).

    Dashes are the time that it takes; ``>`` at the end: its outcome is not known.
    """
    return [_read(line.strip()) for line in text.strip().splitlines()]


def _read(line: str) -> Op:
    word, _, drawn = line.partition(" ")
    drawn = drawn.strip()
    begun = len(drawn) - len(drawn.lstrip("."))
    ended = None if drawn.endswith(">") else float(len(drawn.rstrip(".")))
    if word[0] == "s":
        return Operation(("swap", int(word[1:3])), int(word[-1] == "+"), begun, ended)
    if word[0] == "w":
        return Operation(("write", int(word[1])), 0, begun, ended)
    return Operation(("read", 0), int(word[1]), begun, ended)


GOOD = {
    "nothing": "",
    "a read of what was there first": "r0 -",
    "a write that is read": "w1 -\nr1 ..-",
    "a read during a write sees the old": "w1 ----\nr0 .-",
    "a read during a write sees the new": "w1 ----\nr1 .-",
    "two reads during a write, old then new": "w1 ------\nr0 .-\nr1 ...-",
    "two writes at once, the first wins": "w1 ---\nw2 ---\nr1 ....-",
    "two writes at once, the second wins": "w1 ---\nw2 ---\nr2 ....-",
    "an unknown write that took effect": "w1 ->\nr1 ..-",
    "an unknown write that never did": "w1 ->\nr0 ..-\nr0 ....-",
    "an unknown write that took effect late": "w1 ->\nr0 ..-\nr1 ....-",
    "an unknown write after one that is known": "w1 ->\nw2 ..-\nr2 ....-\nr1 ......-",
    "two unknown writes in the other order": "w1 ->\nw2 ->\nr2 ...-\nr1 .....-",
    "a swap that found its value": "w1 -\ns12+ ..-\nr2 ....-",
    "a swap that did not": "w1 -\ns23- ..-\nr1 ....-",
    "of two swaps at once one wins": "s01+ ---\ns02- ---\nr1 ....-",
    "an unknown swap that worked": "s01> ->\nr1 ..-".replace("s01>", "s01+"),
    "an unknown swap that did not": "s12+ ->\nr0 ..-",
    "readers that agree on an order": "w1 -----\nw2 -----\nr1 ......-\nr1 ........-",
    "a long write seen in between": "w1 ---------\nw2 .-\nr2 ...-\nr1 .....-",
    "the same value written twice": "w1 -\nw2 ..-\nw1 ....-\nr1 ......-",
    "touching times count as at once": "w1 --\nr0 ..-".replace("r0 ..-", "r0 .-"),
    "an unknown read of nonsense": "r9 ->\nw1 ..-\nr1 ....-",
    "reads at once that differ": "w1 -----\nr0 .---\nr1 .---",
}

BAD = {
    "a read of what nobody wrote": "r1 -",
    "a write that is not read": "w1 -\nr0 ..-",
    "a stale read after a fresh one": "w1 ------\nr1 .-\nr0 ...-",
    "a read before the write is begun": "r1 -\nw1 ..-",
    "an overwritten value": "w1 -\nw2 ..-\nr1 ....-",
    "two readers that do not agree": "w1 ---\nw2 ---\nr1 ....-\nr2 ......-",
    "and back again": "w1 ---\nw2 ---\nr1 ....-\nr2 ......-\nr1 ........-",
    "a swap without its value": "s12+ -",
    "a swap that should have found it": "w1 -\ns12- ..-",
    "two swaps that both won": "s01+ ---\ns02+ ---",
    "a swap that left no trace": "s01+ -\nr0 ..-",
    "an unknown write is not seen twice": "w1 ->\nr1 ..-\nw2 ....-\nr2 ......-\nr1 ........-",
    "an unknown write does not undo itself": "w1 ->\nr1 ..-\nr0 ....-",
    "an unknown write seen before its time": "r1 -\nw1 ..>",
    "an unknown write does not excuse others": "w1 ->\nr2 ..-",
    "a lost write between two": "w1 -\nw2 ..-\nw3 ....-\nr2 ......-",
    "a read of the first value again": "w1 -\nr1 ..-\nr0 ....-",
    "a swap after an overwrite": "w1 -\nw2 ..-\ns13+ ....-",
    "an unknown swap cannot have worked": "s12+ ->\nr2 ..-",
    "new then old, with two readers at once": "w1 --------\nr1 .-\nr0 ...--\nr1 ...--",
    "a long stale read": "w1 -\nr0 ..-------",
    "one bad among many good": "w1 -\nr1 ..-\nw2 ....-\nr2 ......-\nw3 ........-\nr2 ..........-",
}


@pytest.mark.parametrize("name", GOOD)
def test_histories_that_are_good(name: str) -> None:
    assert check(Register(), history(GOOD[name])).finding is Finding.GOOD


@pytest.mark.parametrize("name", BAD)
def test_histories_that_are_bad(name: str) -> None:
    result = check(Register(), history(BAD[name]))
    assert result.finding is Finding.BAD
    assert result.culprit in history(BAD[name])


def by_brute_force(operations: Sequence[Op]) -> bool:
    """Try every order of every choice of those whose outcome is not known."""
    model = Register()
    known = [one for one in operations if one.ended is not None]
    open_ones = [one for one in operations if one.ended is None]
    for choice in range(1 << len(open_ones)):
        chosen = known + [one for i, one in enumerate(open_ones) if choice >> i & 1]
        for order in permutations(chosen):
            if _in_time(order) and _possible(model, order):
                return True
    return False


def _in_time(order: Sequence[Op]) -> bool:
    return not any(
        later.ended is not None and later.ended < earlier.begun
        for at, earlier in enumerate(order)
        for later in order[at + 1 :]
    )


def _possible(model: Register, order: Sequence[Op]) -> bool:
    state = model.initial
    for one in order:
        fits, state = model.step(state, one.input, None if one.ended is None else one.output)
        if not fits:
            return False
    return True


def random_history(rng: Random, size: int) -> list[Op]:
    operations: list[Op] = []
    for _ in range(size):
        begun = rng.randrange(12)
        ended = None if rng.random() < 0.25 else float(begun + rng.randrange(1, 6))
        kind = rng.choice(("write", "read", "read", "swap"))
        value = rng.randrange(1, 4) if kind == "write" else rng.randrange(40)
        asked = (kind, 0 if kind == "read" else value % 34)
        output = rng.randrange(2) if kind == "swap" else rng.randrange(4)
        operations.append(Operation(asked, output, begun, ended))
    return operations


def test_small_random_histories_as_brute_force_finds_them() -> None:
    rng = Random(7)
    found = {True: 0, False: 0}
    for _ in range(1500):
        operations = random_history(rng, rng.randrange(2, 6))
        good = by_brute_force(operations)
        found[good] += 1
        wanted = Finding.GOOD if good else Finding.BAD
        assert check(Register(), operations).finding is wanted, operations
    assert min(found.values()) > 100, found


def played(rng: Random, size: int, clients: int = 5) -> list[Op]:
    """Play clients on a real register, one instant each; some never hear what came of it."""
    free = [0.0] * clients
    plan = []
    for number in range(size):
        client = min(range(clients), key=free.__getitem__)
        begun = free[client] + rng.random()
        ended = begun + rng.random() * 5
        free[client] = ended
        plan.append((rng.uniform(begun, ended), begun, ended, number))
    operations = []
    state = 0
    for _, begun, ended, number in sorted(plan):
        if rng.random() < 0.5:
            unknown = rng.random() < 0.1
            if not (unknown and rng.random() < 0.5):
                state = number
            operations.append(Operation(("write", number), 0, begun, None if unknown else ended))
        else:
            operations.append(Operation(("read", 0), state, begun, ended))
    return operations


@pytest.mark.parametrize("seed", range(20))
def test_long_histories_of_a_real_register(seed: int) -> None:
    operations = played(Random(seed), 300)
    assert check(Register(), operations).finding is Finding.GOOD


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_read_in_a_long_history(seed: int) -> None:
    rng = Random(seed)
    operations = played(rng, 160)
    reads = [i for i, one in enumerate(operations) if one.input[0] == "read" and i > 110]
    at = rng.choice(reads)
    wrong = operations[at]
    # The first write is long over by then; nothing writes this value again.
    first = next(one for one in operations if one.input[0] == "write" and one.ended is not None)
    operations[at] = Operation(wrong.input, first.input[1], wrong.begun, wrong.ended)
    assert check(Register(), operations).finding is Finding.BAD


def test_objects_are_judged_apart() -> None:
    operations = [
        Operation(("write", 1), 0, 0.0, 1.0),
        Operation(("write", 2), 0, 0.0, 1.0),
        Operation(("read", 0), 1, 2.0, 3.0),
        Operation(("read", 0), 2, 4.0, 5.0),
    ]
    keys = {(0.0, 1): "a", (0.0, 2): "b", (2.0, 0): "a", (4.0, 0): "b"}
    apart = check_each(Register(), operations, lambda one: keys[one.begun, one.input[1]])
    assert {key: one.finding for key, one in apart.items()} == dict.fromkeys("ab", Finding.GOOD)
    together = check_each(Register(), operations, lambda _: "both")
    assert together["both"].finding is Finding.BAD


def test_the_time_can_run_out() -> None:
    # Many writes at once in every order, and a read that fits none of them.
    operations: list[Op] = [Operation(("write", n), 0, 0.0, 1.0) for n in range(1, 24)]
    operations.append(Operation(("read", 0), 99, 2.0, 3.0))
    ticks = iter(range(10**9))
    assert check(Register(), operations, 3, lambda: next(ticks)).finding is Finding.UNDECIDED
