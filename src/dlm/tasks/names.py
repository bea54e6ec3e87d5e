"""Made-up names: people, firms, places, codes.

Names are put together from syllables, so that a model has to copy them from its prompt: a closed list could
be learnt by heart, and a copied row or fact would then prove nothing.
"""

from __future__ import annotations

from dlm.tasks.draw import Draw

__all__ = ["FIRST_NAMES", "REGIONS", "code", "coined", "date", "firm", "person", "town"]

FIRST_NAMES = (
    "Ada", "Amir", "Ana", "Ben", "Bo", "Carla", "Chen", "Dana", "Dev", "Elif", "Emma", "Erik", "Eva", "Femi",
    "Finn", "Gita", "Hana", "Hugo", "Ines", "Ivan", "Jade", "Jon", "Kai", "Kira", "Lars", "Lea", "Lena",
    "Leo", "Lin", "Luis", "Maja", "Marc", "Maya", "Mei", "Mina", "Nadia", "Nico", "Nora", "Olga", "Omar",
    "Paul", "Petra", "Priya", "Rafa", "Remy", "Rosa", "Sam", "Sara", "Sofia", "Tara", "Theo", "Tom", "Uma",
    "Vera", "Viktor", "Wei", "Yara", "Yusuf", "Zoe", "Zora",
)  # fmt: skip
REGIONS = ("North", "South", "East", "West", "Central", "Coast", "Valley", "Islands", "Metro", "Inland")

_STARTS = (
    "Al", "An", "Ar", "Bal", "Bel", "Bor", "Bri", "Cal", "Cor", "Dal", "Del", "Dor", "El", "Fal", "Fen",
    "Gal", "Gor", "Hal", "Har", "Hol", "Ir", "Jan", "Kal", "Kel", "Kor", "Lan", "Lin", "Lor", "Mal", "Mar",
    "Mel", "Mor", "Nal", "Nor", "Ol", "Or", "Pal", "Pel", "Por", "Quin", "Ral", "Ren", "Ros", "Sal", "Sel",
    "Sol", "Tal", "Tam", "Tor", "Ul", "Val", "Var", "Ver", "Vol", "Wen", "Wil", "Yar", "Zan", "Zel",
)  # fmt: skip
_MIDDLES = (
    "a", "e", "i", "o", "u", "ba", "be", "da", "di", "do", "ga", "ka", "la", "le", "li", "lo", "ma", "me",
    "mi", "mo", "na", "ne", "ni", "no", "ra", "re", "ri", "ro", "sa", "ta", "te", "ti", "to", "va", "vi",
)  # fmt: skip
_ENDS = (
    "n", "r", "s", "x", "l", "th", "nd", "rt", "st", "ck", "lan", "den", "don", "dor", "fax", "gate", "ham",
    "ker", "land", "lin", "lis", "ma", "mar", "mont", "na", "nos", "ra", "ric", "ris", "ro", "son", "ta",
    "ton", "tra", "va", "via", "vin", "wick", "wood",
)  # fmt: skip
_FIRM_WORDS = (
    "Supply", "Foods", "Works", "Labs", "Group", "Freight", "Print", "Tools", "Media", "Paper", "Energy",
    "Textiles", "Motors", "Logistics", "Partners", "Systems",
)  # fmt: skip
_TOWN_ENDS = ("burg", "field", "ford", "haven", "mouth", "stad", "ville", " Bay", " Hill", " Bridge")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def coined(draw: Draw) -> str:
    """A made-up word that starts with a capital: two or three syllables."""
    return draw.choice(_STARTS) + draw.choice(_MIDDLES) + draw.choice(_ENDS)


def person(draw: Draw) -> str:
    """A first name from a short list with a made-up last name."""
    return f"{draw.choice(FIRST_NAMES)} {coined(draw)}"


def firm(draw: Draw) -> str:
    """A made-up firm of two words."""
    return f"{coined(draw)} {draw.choice(_FIRM_WORDS)}"


def town(draw: Draw) -> str:
    """A made-up town."""
    return draw.choice(_STARTS) + draw.choice(_MIDDLES) + draw.choice(_TOWN_ENDS)


def date(draw: Draw) -> str:
    """A day and a month, such as `14 March`."""
    return f"{draw.integer(1, 28)} {draw.choice(_MONTHS)}"


def code(draw: Draw) -> str:
    """A short code, such as `KX-482`."""
    letters = draw.choice(_LETTERS) + draw.choice(_LETTERS)
    return f"{letters}-{draw.integer(100, 9999)}"
