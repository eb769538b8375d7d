"""Questions with numbers and names drawn anew: like the probes of a card, and in no list where their answers could be looked up."""

from __future__ import annotations

from random import Random

from folkmoot.core.skill import How, Probe, SkillClass

NAMES = (
    "Anna", "Boris", "Carla", "Deniz", "Emil", "Frida", "Goran", "Hilde", "Ivan", "Jutta", "Kemal", "Lotte", "Marek", "Nora",
    "Oskar", "Paula", "Rasmus", "Selma", "Tomas", "Ulla", "Vera", "Wanda", "Yusuf", "Zita",
)  # fmt: skip
TOWNS = (
    "Bergen",
    "Cadiz",
    "Delft",
    "Evora",
    "Ghent",
    "Kotor",
    "Lublin",
    "Malmo",
    "Odense",
    "Parma",
    "Riga",
    "Split",
    "Trento",
    "Varna",
)
COLOURS = ("black", "blue", "brown", "green", "grey", "orange", "purple", "red", "white", "yellow")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
THINGS = ("apples", "bottles", "candles", "coins", "letters", "marbles", "nails", "pears", "stamps", "tiles")
WORDS = (
    "anchor",
    "badger",
    "clover",
    "dolphin",
    "falcon",
    "ginger",
    "hazel",
    "lantern",
    "maple",
    "otter",
    "pebble",
    "willow",
)
AT_LENGTH = (
    "Work it out in a few short steps and end with the number.",
    "Think it through briefly and give the number at the end.",
    "Show the steps in short; the last thing that you write is the number.",
)
IN_SHORT = ("Answer with the name only.", "Just the name, please.", "Give only the name.")
IN_A_WORD = ("Answer with one word.", "One word is enough.", "Reply in a single word.")


def draw(skill: SkillClass, rng: Random) -> Probe:
    """A question of arithmetic or of extraction. The first are about as hard as the packaged ones: a third takes one step."""
    if skill is SkillClass.ARITHMETIC:
        text, answer = _sum(rng)
        return Probe("", skill, text, (str(answer),), How.NUMBER)
    text, right, others = _fact(rng)
    return Probe("", SkillClass.EXTRACTION, text, (right,), How.HOLDS, others)


def _sum(rng: Random) -> tuple[str, int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    a, b, c = rng.randint(3, 19), rng.randint(3, 9), rng.randint(2, 9)
    match rng.randrange(9):
        case 0:
            return rng.choice(("What is {} + {}?", "How much is {} plus {}?")).format(a, b + c), a + b + c
        case 1:
            return rng.choice(("What is {} - {}?", "How much is {} minus {}?")).format(a + b + c, a), b + c
        case 2:
            return rng.choice(("What is {} times {}?", "How much is {} multiplied by {}?")).format(
                a, b
            ), a * b
        case 3:
            told = f"{name} packs {a} {thing} into each box and fills {b} boxes. How many {thing} are packed?"
            found = a * b
        case 4:
            told = f"{name} has {a + b} {thing}, gives {b} of them away and then gets {c} more. How many {thing} does {name} have now?"
            found = a + c
        case 5:
            told = f"There are {b} shelves with {a} {thing} on each of them. {c} of the {thing} are sold. How many {thing} are left?"
            found = a * b - c
        case 6:
            told = f"{a * b} {thing} are shared out evenly among {b} children. How many {thing} does each child get?"
            found = a
        case 7:
            told = (
                f"A lamp costs {10 * b} coins and is sold for {10 * c} percent less. {name} buys one and pays with "
                f"{10 * b + a} coins. How many coins does {name} get back?"
            )
            found = a + b * c
        case _:
            told = (
                f"{name} walks {a} kilometres on Monday, twice as many on Tuesday, and on Wednesday {b} more than on Tuesday. "
                "How many kilometres are that in the three days?"
            )
            found = 5 * a + b
    return f"{told} {rng.choice(AT_LENGTH)}", found


def _fact(rng: Random) -> tuple[str, str, tuple[str, ...]]:
    """A text with its question, the word that answers it, and those that do not."""
    one, two, three, four = rng.sample(NAMES, 4)
    match rng.randrange(5):
        case 0:
            told = (
                f"{one} lent the ladder to {two}, and {two} passed it on to {three}. Who has the ladder now?"
            )
            return f"{told} {rng.choice(IN_SHORT)}", three, (one, two)
        case 1:
            planned, held = rng.sample(DAYS, 2)
            told = f"The concert was announced for {planned}. As the hall was flooded, it took place on {held}. On which day was it held?"
            return f"{told} {rng.choice(IN_A_WORD)}", held, (planned,)
        case 2:
            start, end = rng.sample(TOWNS, 2)
            told = (
                f"Parcel {rng.randint(1000, 9999)}: {rng.randint(2, 9)} {rng.choice(THINGS)}, handed in by {one} in {start}, "
                f"to be brought to {end}. To which town does the parcel go?"
            )
            return f"{told} {rng.choice(IN_SHORT)}", end, (start,)
        case 3:
            first, second, third = rng.sample(COLOURS, 3)
            told = f"{one}'s door is {first}, {two}'s door is {second} and {three}'s door is {third}. What colour is {two}'s door?"
            return f"{told} {rng.choice(IN_A_WORD)}", second, (first, third)
        case _:
            old, new = rng.sample(WORDS, 2)
            told = (
                f"Log of the gate. {rng.randint(10, 12)}:{rng.randint(10, 59)} {four} leaves; the password was {old}. "
                f"{rng.randint(13, 17)}:{rng.randint(10, 59)} from now on it is {new}. What is the password now?"
            )
            return f"{told} {rng.choice(IN_A_WORD)}", new, (old,)
