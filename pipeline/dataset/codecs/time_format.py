"""The ways to write a stamp: ISO 8601, patterns such as %d/%m/%Y, units of time since 1970, or a count.

A format that was not given is recognised only where a single one fits all stamps of a table.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64

from pipeline.errors import ConfigError, DataError

ISO, COUNT, EXCEL = "iso", "count", "excel"
SECOND = 1_000_000  # microseconds
UNIX = {"seconds": SECOND, "milliseconds": SECOND // 1000, "microseconds": 1, "nanoseconds": 1e-3}  # since 1970
BEGIN, END = 631_152_000, 1_900_000_000  # seconds from 1970 to 1990 and to 2030: stamps of that range are recognised
EXCEL_EPOCH = 25_569  # days of Excel at 1970-01-01
EXCEL_DAYS = 20_000, 73_050  # 1954 to 2100: whole numbers of that range are days or counts
LARGEST_COUNT = 10**8
YEARS = 1800, 2200
DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
NUMBER = re.compile(r"-?\d+(\.\d*)?")
OFFSET = re.compile(r"\d[T ]\d{2}.*?(Z|[+-]\d{2}(?::?\d{2})?)$")  # of a time of day to UTC
TAIL = re.compile(r"(Z|[+-]\d{2}(?::?\d{2})?)$")
DATES = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%Y.%m.%d", "%m/%Y", "%m-%Y", "%b-%Y", "%b %Y"),
    *("%Y-%b", "%B %Y", "%d-%b-%Y", "%d %b %Y", "%d%b%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
UTC = re.compile(r"(?<=\d)\s?(UTC|GMT)$")
TIMES = "", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"
PROBED = 20  # stamps that are tried with all patterns
CHOICES = f"{', '.join((ISO, COUNT, *UNIX, EXCEL))} or a pattern such as %d/%m/%Y"


def check_time_format(written: str) -> None:
    """Raise ConfigError if a format of stamps does not exist."""
    try:
        if written not in (ISO, COUNT, EXCEL, *UNIX) and "%" not in written:
            raise ValueError
        if "%" in written:
            pd.to_datetime(["2000"], format=written, errors="coerce")
    except ValueError as error:
        raise ConfigError(f"--time-format={written}: expected {CHOICES}, got {written}") from error


def trimmed_stamps(texts: Sequence[str]) -> list[str]:
    """Return stamps without blanks around them, and with `Z` for the name of the zone UTC."""
    bare = [text.strip() for text in texts]
    every = "\n".join(bare)
    return [UTC.sub("Z", text) for text in bare] if "UTC" in every or "GMT" in every else bare


def parse_stamps(texts: Sequence[str], written: str) -> pd.DatetimeIndex:
    """Return the times of texts, NaT where they are not in the format; in UTC if they have offsets to UTC."""
    if written == ISO:
        offsets = _have_offsets(texts)
        dashed = [text.replace("/", "-") for text in texts]
        return pd.DatetimeIndex(pd.to_datetime(dashed, errors="coerce", format="ISO8601", utc=offsets))
    if written in UNIX or written == EXCEL:
        return _since_1970(texts, written)
    digits = next((number for number, pattern in DIGITS.items() if pattern == written), None)
    whole = [text if digits in (None, len(text)) else "" for text in map(_without_fraction, texts)]
    return pd.DatetimeIndex(pd.to_datetime(whole, errors="coerce", format=written, utc="%z" in written))


def native_stamps(column: "pa.ChunkedArray | pa.Array", name: str) -> pd.DatetimeIndex:
    """Return a column of dates or times in Arrow's types.

    Raises:
        DataError: it has times of a day or durations, or parts of a microsecond.
    """
    try:
        return pd.DatetimeIndex(column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).to_pandas())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name}: expected dates or times in whole microseconds, got {column.type} ({error}). Convert them"
        ) from error


def write_stamps(index: pd.DatetimeIndex, written: str) -> list[str]:
    """Return times in a format other than ISO 8601 and counts."""
    if "%" in written:
        return list(index.strftime(written))
    if written == EXCEL:
        days = index.tz_localize(None).as_unit("us").asi8 / (86_400 * SECOND) + EXCEL_EPOCH
        return [f"{day:.10g}" for day in days]
    microseconds = (index.tz_convert(None) if index.tz else index).as_unit("us").asi8
    if written == "nanoseconds":
        return [str(1000 * each) for each in microseconds.tolist()]
    size = int(UNIX[written])
    whole = not (microseconds % size).any()
    return [str(each // size if whole else each / size) for each in microseconds.tolist()]


def offset_of(texts: Sequence[str], zone: str, name: str) -> str:
    """Return the time zone of ISO stamps: the given one, else the UTC offset that all have, else "".

    Raises:
        DataError: the offsets differ and no time zone is given, or only some stamps have an offset.
    """
    if not _have_offsets(texts):
        return zone
    offsets = {_offset(found[1]) if (found := OFFSET.search(text)) else "" for text in texts}
    if len(offsets) > 1 and ("" in offsets or not zone):
        fix = "Write all stamps with an offset" if "" in offsets else "Give their zone with --time-zone AREA/CITY"
        named = ", ".join(sorted(offset or "none" for offset in offsets))
        raise DataError(f"column {name}: expected stamps with one UTC offset, got {named}. {fix}")
    return zone or next(iter(offsets))


def _have_offsets(texts: Sequence[str]) -> bool:
    """Return whether a stamp has an offset; few of the ends of stamps at regular times are different."""
    return any(map(TAIL.search, {text[-7:] for text in texts})) and any(map(OFFSET.search, texts))


def recognised(texts: Sequence[str], name: str) -> str:
    """Return the only format that fits the stamps of a table.

    Args:
        texts: the different stamps, without empty ones.
        name: the column, for error messages.

    Raises:
        DataError: several formats fit, or the stamps are numbers that are neither dates nor counts.
    """
    numbers = [text for text in texts if NUMBER.fullmatch(text)]
    if 2 * len(numbers) > len(texts):
        return _of_numbers(numbers, name)
    probe = texts[:PROBED]
    if not all(parse_stamps(part, ISO).isna().all() for part in (probe, texts)):
        return ISO
    patterns = [date + time for date in DATES for time in TIMES]
    read = {pattern: parse_stamps(texts, pattern) for pattern in patterns if parse_stamps(probe, pattern).notna().any()}
    most = max((int(index.notna().sum()) for index in read.values()), default=0)
    best = {pattern: index for pattern, index in read.items() if most and index.notna().sum() == most}
    if not best:
        return ISO
    first, *others = best
    return _only([first, *(each for each in others if not best[each].equals(best[first]))], texts, name)


def _of_numbers(texts: Sequence[str], name: str) -> str:
    """Return the format of stamps that are numbers: dates of digits, units of time since 1970, or counts."""
    values = np.array(texts, float)
    low, high = values.min(), values.max()
    whole = bool((values % 1 == 0).all())
    padded = any(text.lstrip("-").startswith("0") and len(_without_fraction(text)) > 1 for text in texts)
    fitting = [unit for unit, size in UNIX.items() if low * size >= BEGIN * SECOND and high * size < END * SECOND]
    if whole and not padded:
        fitting += _dates_of_digits(texts)
        excel = EXCEL_DAYS[0] <= low and high <= EXCEL_DAYS[1]
        if not fitting and not excel and low > -LARGEST_COUNT and high < LARGEST_COUNT:
            return COUNT
    return _only(fitting, texts, name)


def _dates_of_digits(texts: Sequence[str]) -> list[str]:
    digits = {len(_without_fraction(text)) for text in texts}
    if len(digits) > 1 or (pattern := DIGITS.get(next(iter(digits)))) is None:
        return []
    fitting, years = [], parse_stamps(texts, pattern).year.to_numpy(float)
    with np.errstate(invalid="ignore"):
        if ((years >= YEARS[0]) & (years < YEARS[1])).mean() > 0.9:
            fitting.append(pattern)
    short = parse_stamps(texts, "%y%m%d") if pattern == "%Y%m" else pd.DatetimeIndex([])
    if len(short) and short.notna().all() and _is_regular(short.asi8):
        fitting.append("%y%m%d")
    return fitting


def _is_regular(times: "np.ndarray | Float64[np.ndarray, ' L']") -> bool:
    return len(np.unique(np.diff(np.unique(times)))) <= 1


def _only(fitting: Sequence[str], texts: Sequence[str], name: str) -> str:
    """Return the only fitting format.

    Raises:
        DataError: there are several, or none.
    """
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        options = " or ".join(f"--time-format {each}" for each in fitting)
        raise DataError(f"column {name}: {texts[0]} can be read as {' and as '.join(fitting)}. Give {options}")
    raise DataError(
        f"column {name}: expected dates, or counts such as 0, 1, 2, got {texts[0]}. Give --time-format with {CHOICES}"
    )


def _since_1970(texts: Sequence[str], written: str) -> pd.DatetimeIndex:
    numbers = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy()
    bad = ~np.isfinite(numbers)
    numbers = np.where(bad, 0, numbers)
    if written == EXCEL:  # its fractions of a day are rounded
        times = np.round((numbers - EXCEL_EPOCH) * 86_400) * SECOND
    elif written == "nanoseconds":
        times = numbers // 1000
    else:
        times = np.round(numbers * int(UNIX[written]))
    index = pd.DatetimeIndex(times.astype(np.int64).astype("datetime64[us]"))
    return index.where(~bad)


def _offset(text: str) -> str:
    digits = text[1:].replace(":", "").ljust(4, "0")
    return "UTC" if text == "Z" or digits == "0000" else f"UTC{text[0]}{digits[:2]}:{digits[2:]}"


def _without_fraction(text: str) -> str:
    """Return a whole number without `.0`, with which pandas writes columns that have missing values."""
    return text.rstrip("0").removesuffix(".") if re.fullmatch(r"-?\d+\.0*", text) else text
