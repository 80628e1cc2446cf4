"""Meaning of the texts in a column: missing values, numbers and their units, dates, truth values, categories."""

from __future__ import annotations

import datetime
import functools
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MISSING = (
    "",
    "?",
    "-",
    "--",
    ".",
    "na",
    "n/a",
    "n.a.",
    "<na>",
    "#n/a",
    "#n/a n/a",
    "#na",
    "#div/0!",
    "#value!",
    "#ref!",
    "#name?",
    "#num!",
    "#null!",
    "nan",
    "-nan",
    "1.#qnan",
    "1.#ind",
    "-1.#ind",
    "nat",
    "null",
    "(null)",
    "nil",
    "none",
    "\\n",  # \N of databases; letters are small here
)

_LONGEST_TEXT = 200  # characters; a longer one is prose and no category
_BLANKS = str.maketrans({"\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " "})
_SIGNS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})
# fmt: off
_CURRENCIES = frozenset((
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "INR", "JPY", "KRW", "MXN",
    "NOK", "NZD", "PLN", "RUB", "SEK", "SGD", "TRY", "USD", "ZAR",
))
# fmt: on
_TRUTH = ({"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
_GROUPS = ("", ".", ",", " ", "'")  # separators of thousands
_FIELD = re.compile(
    r"(?P<paren>\()?\s*(?P<sign>[+-]?)\s*(?P<prefix>[^\W\d_]{3}(?=\s*[+-]?\d)|[^\w\s.,'()+%-])?\s*(?P<inner>[+-]?)"
    r"(?P<digits>(?:\d|[.,](?=\d))(?:[\d.,']|\s(?=\d{3}(?!\d)))*(?:[eE][+-]?\d+)?)"
    r"(?P<suffix>\s*%|\s*[^\w\s.,'()+-]|\s*[A-Z]{3}|\s+[^\W\d_][^\d_]{0,15})?\s*(?P<close>\))?"
)
_ADDRESS = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}")  # of the internet, and no number of 12 digits
_NUMERIC_START = re.compile(r"[(+-]*\s*[^\w\s]?\s*[+-]?\s*[.,]?\d")
_GARBLED = re.compile(r"[\dOoIl.,+\-% ]*")


class FieldError(ValueError):
    """A text that does not belong in its column, by its place among the distinct ones.

    Attributes
    ----------
    place : int or None
    open_decimal : bool
        Whether it is a number that means one thing with a decimal point and another with a decimal comma.
    """

    def __init__(self, place: int | None, message: str, open_decimal: bool = False) -> None:
        super().__init__(message)
        self.place, self.open_decimal = place, open_decimal


@dataclass(frozen=True)
class Meaning:
    """Meaning of the distinct texts of a column.

    Attributes
    ----------
    kind : {"number", "date", "text"}
    numbers : list of float
        Of each text, NaN where it is missing; dates are days since 1970, times of day parts of one. Empty for texts.
    texts : list of str
        Of each text the category that it stands for. Empty for numbers.
    missing : list of bool
    unit : str
        Percent sign, currency or unit that all numbers have.
    decimal : str
        "." or "," where the texts tell one from the other, else "".
    first : str
        "day" or "month" where dates have the year last and no dots, whichever comes first in them, else "".
    """

    kind: str
    missing: list[bool]
    numbers: list[float]
    texts: list[str]
    unit: str = ""
    decimal: str = ""
    first: str = ""


def is_missing(text: str, values: Collection[str] | None = None) -> bool:
    """True if a text says that there is no value: one of the common list, or else empty or equal to one of these."""
    text = text.strip()
    if values is None:
        return not text or text.lower() in _MISSING
    value = number(text)
    return not text or text in values or (value is not None and value in map(number, values))


_MISSING = frozenset(MISSING)


def number(text: str) -> float | None:
    """The number that a field holds, None where it holds something else."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def looks_like_number(text: str) -> bool:
    """True if a text is a number in one of the ways in which people write them."""
    value = number(text)
    if value is not None:
        return True
    split = _split(text)
    return split is not None and bool(_styles(split[1]))


def looks_like_name(text: str) -> bool:
    """True if a text may be the name of a column: no number, date or missing value, and no number gone wrong."""
    if is_missing(text) or looks_like_number(text) or _date_form(text.strip()):
        return False
    return not (_GARBLED.fullmatch(text.strip()) and any(letter.isdigit() for letter in text))


def looks_like_date(text: str) -> bool:
    return bool(_date_form(text.strip()))


def meaning(
    texts: Sequence[str],
    *,
    kind: str | None = None,
    decimal: str | None = None,
    missing: Collection[str] | None = None,
    first: str | None = None,
) -> Meaning:
    """The meaning that all texts of a column have in common.

    Parameters
    ----------
    texts : sequence of str
        The distinct ones, in order of appearance.
    kind : {"number", "date", "text"}, optional
        By default found out.
    decimal : {".", ","}, optional
        The decimal sign; by default the one that the texts leave no doubt about.
    missing : collection of str, optional
        Texts that stand for no value beside the empty one; by default `MISSING`.
    first : {"day", "month"}, optional
        What comes first in dates like 01/02/2024; by default what the texts leave no doubt about.

    Raises
    ------
    FieldError
        If the texts have no meaning in common, or more than one.
    """
    stripped = [text.strip() for text in texts]
    absent = [is_missing(text, missing) for text in stripped]
    given = [place for place, gone in enumerate(absent) if not gone]
    for place in given:
        if "\0" in stripped[place]:
            raise FieldError(place, f"{stripped[place]!r} has a NUL character")
    if kind != "text":
        found = _numbers(stripped, absent, given, decimal)
        if found is None and kind != "number":
            found = _dates(stripped, absent, given, first)
        if found is not None and (kind is None or found.kind == kind or not given):
            return found
        if kind is not None:
            wrong = next((place for place in given if not _is(kind, stripped[place])), None)
            raise FieldError(wrong, f"{stripped[wrong or 0]!r} is no {kind}")
        _refuse_mixtures(stripped, given)
    for place in given:
        if len(stripped[place]) > _LONGEST_TEXT:
            raise FieldError(place, f"a text of {len(stripped[place])} characters is no category")
    return Meaning("text", absent, [], _categories(stripped, given))


def _is(kind: str, text: str) -> bool:
    return looks_like_number(text) if kind == "number" else looks_like_date(text)


def _categories(texts: list[str], given: Sequence[int]) -> list[str]:
    """Words of truth are the same in small letters and capitals; all other texts are what they are."""
    there = {texts[place] for place in given}
    words = {text.lower() for text in there}
    # True is that of Python, TRUE that of R; of the others, the capitals are kept where each word is always the same.
    alike = words <= {"true", "false"} or (len(words) < len(there) and any(words <= pair for pair in _TRUTH))
    return [text.lower() for text in texts] if alike else texts


def _refuse_mixtures(texts: list[str], given: Sequence[int]) -> None:
    """Raise where some texts are numbers and others are not, or where all begin like numbers of no known form."""
    if not given:
        return
    values = {place: number(texts[place]) for place in given}
    first_is_number = _is_amount(texts[given[0]])
    for place in given:
        text, value = texts[place], values[place]
        if value is not None and not math.isfinite(value):
            raise FieldError(place, f"{text!r} is no finite number")
        plain = value is not None
        if first_is_number and not _is_amount(text):
            raise FieldError(place, f"{text!r} is a text in a column of numbers")
        if not first_is_number and plain:
            raise FieldError(place, f"{text!r} is a number in a column of texts")
    if first_is_number:
        if len({_unit(texts[place]) for place in given}) > 1:
            odd = next(place for place in given if _unit(texts[place]) != _unit(texts[given[0]]))
            raise FieldError(odd, f"{texts[odd]!r} has another unit than {texts[given[0]]!r}")
        raise FieldError(None, f"{texts[given[0]]!r} and others have no decimal sign in common")
    if len(given) > 1 and all(_date_form(texts[place]) for place in given):
        raise FieldError(given[0], f"{texts[given[0]]!r} is a date in a form that others do not have")
    if all(_MONTH.search(texts[place]) or _SHORT_DATE.fullmatch(texts[place]) for place in given):
        raise FieldError(
            given[0],
            f"{texts[given[0]]!r} looks like a date; write dates like 2024-01-31 and times like 13:45, or say that "
            "these are texts (--type NAME=text)",
        )
    starts = sum(bool(_NUMERIC_START.match(texts[place])) for place in given)
    if starts == len(given) and len(given) > 20:
        raise FieldError(
            given[0],
            f"{texts[given[0]]!r} begins like a number; write numbers like 1234.5, or say that these are texts "
            "(--type NAME=text)",
        )


def _is_amount(text: str) -> bool:
    """True if a text is a number without a word after it: the words of "1 star" and "2 stars" make categories."""
    unit = _unit(text)
    return looks_like_number(text) and (not unit.isalpha() or unit in _CURRENCIES)


def _unit(text: str) -> str:
    split = _split(text)
    return "" if split is None else split[2]


def _split(text: str) -> tuple[float, str, str] | None:
    """Sign, digits with their separators, and unit of a number, None where a text is something else."""
    found = _FIELD.fullmatch(text.translate(_BLANKS).translate(_SIGNS).strip())
    if found is None or bool(found["paren"]) != bool(found["close"]) or _ADDRESS.fullmatch(found["digits"]):
        return None
    signs = [sign for sign in (found["paren"], found["sign"], found["inner"]) if sign]
    prefix, after = (found["prefix"] or ""), (found["suffix"] or "")
    suffix = after.strip()
    known = all(
        each in ("", "%") or each in _CURRENCIES or unicodedata.category(each[0]) == "Sc" for each in (prefix, suffix)
    )
    word = suffix.replace(" ", "").isalpha() and after[0].isspace() and not prefix
    if len(signs) > 1 or (prefix and suffix) or not (known or word):
        return None
    return -1.0 if signs and signs[0] in "(-" else 1.0, found["digits"], prefix or suffix


@functools.cache
def _style(group: str, decimal: str) -> re.Pattern[str]:
    point = re.escape(decimal)
    whole = r"\d+"
    if group:
        separator = re.escape(group)
        indian = rf"|\d{{1,2}}(?:{separator}\d\d)+{separator}\d{{3}}" if group == "," else ""
        whole = rf"(?:[1-9]\d{{0,2}}(?:{separator}\d{{3}})+{indian}|\d+)"
    return re.compile(rf"(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")


_STYLES = [(group, decimal) for decimal in (".", ",") for group in _GROUPS if group != decimal]


def _styles(digits: str) -> list[tuple[str, str]]:
    return [style for style in _STYLES if _style(*style).fullmatch(digits)]


def _numbers(texts: list[str], absent: list[bool], given: Sequence[int], decimal: str | None) -> Meaning | None:
    """Texts as numbers of one style and unit, None where they are not all numbers of some style.

    Raises
    ------
    FieldError
        If they are, and the decimal sign is open.
    """
    values = [math.nan] * len(texts)
    if not given:
        return Meaning("number", absent, values, [])
    plain = [number(texts[place]) for place in given]
    if decimal != "," and all(value is not None and math.isfinite(value) for value in plain):
        for place, value in zip(given, plain, strict=True):
            values[place] = value if value is not None else math.nan
        certain = any(
            "." in texts[place] and not _style(".", ",").fullmatch(texts[place].lstrip("+-")) for place in given
        )
        return Meaning("number", absent, values, [], "", "." if certain else "")
    splits = [split for split in (_split(texts[place]) for place in given) if split is not None]
    styles = [style for style in _STYLES if decimal in (None, style[1])]
    styles = [style for style in styles if all(_style(*style).fullmatch(digits) for _, digits, _ in splits)]
    if len(splits) < len(given) or len({unit for _, _, unit in splits}) > 1 or not styles:
        return None
    readings: dict[str, list[float]] = {}  # by decimal sign; several separators of thousands fit where there is none
    for group, point in styles:
        plainly = [(digits.replace(group, "") if group else digits).replace(point, ".") for _, digits, _ in splits]
        readings[point] = [sign * float(digits) for (sign, _, _), digits in zip(splits, plainly, strict=True)]
        if not all(map(math.isfinite, readings[point])):
            return None
    both = list(readings.values())
    if len(both) == 2 and both[0] != both[1]:
        odd = next(place for place, one, other in zip(given, *both, strict=True) if one != other)
        one, other = (reading[given.index(odd)] for reading in both)
        raise FieldError(odd, f"{texts[odd]!r} may be {one:g} or {other:g}", open_decimal=True)
    for place, value in zip(given, both[0], strict=True):
        values[place] = value
    return Meaning("number", absent, values, [], splits[0][2], next(iter(readings)) if len(both) == 1 else "")


_TIME = r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d(?:[.,]\d+)?))?"
_ZONE = r"\s?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?"
_AFTER = rf"(?:[T ]\s*{_TIME}{_ZONE})?"
_FORMS = {
    "year-month-day": re.compile(rf"(?P<y>\d{{4}})(?P<s>[-/.])(?P<a>\d\d?)(?P=s)(?P<b>\d\d?){_AFTER}"),
    "day-month": re.compile(rf"(?P<a>\d\d?)(?P<s>[-/.])(?P<b>\d\d?)(?P=s)(?P<y>\d{{4}}){_AFTER}"),
    "time": re.compile(_TIME),
}
_MONTHS = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_MONTH = re.compile(rf"\d.*\b{_MONTHS}|\b{_MONTHS}[a-z]*\.? \d", re.IGNORECASE)
# Without century, day or year, or of half a day: what no form above is.
_SHORT_DATE = re.compile(
    r"\d\d?(?P<s>[-/.])\d\d?(?P=s)\d\d|(?:18|19|20|21)\d\d[-/](?:0?[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])[-/](?:18|19|20|21)\d\d"
    r"|(?:18|19|20|21)\d\d[- ]?Q[1-4]|Q[1-4][- /]?(?:18|19|20|21)\d\d|(?:0?\d|1[0-2])(?::[0-5]\d){1,2}\s?[ap]\.?m\.?",
    re.IGNORECASE,
)
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def _date_form(text: str) -> str:
    return next((form for form, pattern in _FORMS.items() if pattern.fullmatch(text)), "")


def _dates(texts: list[str], absent: list[bool], given: Sequence[int], first: str | None) -> Meaning | None:
    """Texts as days since 1970, None where they are no dates of one form.

    Raises
    ------
    FieldError
        If a date is none of the calendar, or day and month cannot be told apart.
    """
    form = _date_form(texts[given[0]])
    if not form:
        return None
    found = [_FORMS[form].fullmatch(texts[place]) for place in given]
    if any(each is None for each in found):
        return None
    matches = [each for each in found if each is not None]
    order = ""
    if form == "day-month" and any(match["s"] != "." for match in matches):  # dots are between day, month, year only
        order = first or _first(matches)
        if not order:
            raise FieldError(
                given[0],
                f"{texts[given[0]]!r} has day and month in an order that no row tells; write dates like 2024-01-31",
            )
    zoned = {match["zone"] is None for match in matches} if form != "time" else {True}
    if len(zoned) > 1:
        raise FieldError(given[0], f"{texts[given[0]]!r}: some times have a zone and others not")
    values = [math.nan] * len(texts)
    for place, match in zip(given, matches, strict=True):
        try:
            values[place] = _days(match, form, order == "month")
        except ValueError:
            so = f" with the {first} first, as in the rows that were trained on" if first and order else ""
            raise FieldError(place, f"{texts[place]!r} is no date of the calendar{so}") from None
    return Meaning("date", absent, values, [], "time" if form == "time" else "", first=order)


def _first(matches: Sequence[re.Match[str]]) -> str:
    """Part that comes first in dates with the year last, "day" or "month"; "" where none of them tells."""
    largest = [max(int(match[name]) for match in matches) for name in "ab"]
    return "day" if largest[0] > 12 else "month" if largest[1] > 12 else ""


def _days(match: re.Match[str], form: str, swapped: bool) -> float:
    day = 0.0
    if form != "time":
        a, b = int(match["a"]), int(match["b"])
        month, number_of_day = (a, b) if form == "year-month-day" or swapped else (b, a)
        day = float(datetime.date(int(match["y"]), month, number_of_day).toordinal() - _EPOCH)
    if match["hour"] is not None:
        seconds = 3600 * int(match["hour"]) + 60 * int(match["minute"])
        day += (seconds + float((match["second"] or "0").replace(",", "."))) / 86400
        zone = match["zone"] if form != "time" else None
        if zone is not None and zone[0] in "+-":
            hours = int(zone[1:3]) + int(zone[-2:]) / 60
            day -= (-hours if zone[0] == "-" else hours) / 24
    return day
