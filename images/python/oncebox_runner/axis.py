"""Reads an axis of matplotlib: its ticks, its scale, and what its positions stand for."""

import math
import re
from itertools import pairwise
from numbers import Number

from matplotlib import dates, ticker
from matplotlib.category import StrCategoryConverter, StrCategoryFormatter

UNIT = re.compile(r"\s\((.*?)\)|\[(.*?)\]")

# Formatters that give ticks names.
NAMES = (ticker.FixedFormatter, ticker.FuncFormatter, StrCategoryFormatter)


class Axis:
    """The x or y axis of a chart."""

    def __init__(self, axis):
        self._axis = axis
        converter = axis.get_converter()
        self._is_categorical = isinstance(converter, StrCategoryConverter)
        self._has_dates = isinstance(converter, (dates.DateConverter, dates._SwitchableDateConverter))
        # pandas draws dates at even distances as numbers of periods.
        formatter = axis.get_major_formatter()
        self._freq = getattr(formatter, "freq", None) if type(formatter).__name__.startswith("TimeSeries_") else None

    def label_and_unit(self) -> tuple[str | None, str | None]:
        """Its label, and the unit in it: `m` in `Height (m)` and in `Height [m]`."""
        text = self._axis.get_label_text()
        unit = UNIT.search(text)
        return text or None, unit and (unit[1] or unit[2])

    def ticks(self) -> tuple[list, list[str], str]:
        """The places of the ticks, their labels, and the scale."""
        labels = [label.get_text() for label in self._axis.get_ticklabels()]
        places = [float(place) for place in self._axis.get_majorticklocs()]
        if self._freq:
            return [self.value(place) for place in places], labels, "datetime"
        if self._has_dates:
            return [dates.num2date(place).isoformat() for place in places], labels, "datetime"
        scale = self._axis.get_scale()
        if scale == "linear" and (self._is_categorical or _are_names(places, labels)):
            scale = "categorical"
        return places, labels, scale

    def value(self, place: float):
        """What a place stands for: a date, a category or the number itself."""
        if not math.isfinite(place):
            return place
        time = self._time(place)
        if time is not None:
            return time.isoformat()
        if self._is_categorical:
            names = {at: name for name, at in self._axis.units._mapping.items()}
            return names.get(round(place), place)
        return place

    def values(self, data) -> list:
        """What data that the code drew stand for. Dates and categories are among the data as they are."""
        return [self._value_of(item) for item in data]

    def names_ticks(self) -> bool:
        """Whether its labels are names, and not the numbers or dates of their ticks."""
        return not (self._has_dates or self._freq) and isinstance(self._axis.get_major_formatter(), NAMES)

    def label_at(self, place: float) -> str:
        """The text for a place: the name of the nearest tick, or else what the place stands for."""
        if self.names_ticks():
            places = self._axis.get_majorticklocs()
            room = min((abs(b - a) for a, b in pairwise(places)), default=1.0) / 2
            names = (label.get_text() for label in self._axis.get_ticklabels())
            distance, name = min(((abs(at - place), name) for at, name in zip(places, names)), default=(room, ""))
            if name and distance < room:
                return name
        time = self._time(place)
        if time is None:
            return f"{place:.6g}"
        return time.isoformat().removesuffix("T00:00:00")

    def _time(self, place):
        if self._freq:
            from pandas import Period

            return Period(ordinal=int(place), freq=self._freq).to_timestamp()
        return dates.num2date(place).replace(tzinfo=None) if self._has_dates else None

    def _value_of(self, item):
        kind = getattr(getattr(item, "dtype", None), "kind", None)
        if kind == "M":
            return str(item.astype("datetime64[s]"))
        return self.value(float(item)) if isinstance(item, Number) and kind != "m" else item


def _are_names(places, labels):
    """Whether the ticks are numbered from 0 on and their labels are not these numbers."""
    return bool(places) and all(place == i and label != str(i) for i, (place, label) in enumerate(zip(places, labels)))
