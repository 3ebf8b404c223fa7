"""Describes a figure of matplotlib as data, in the form that E2B's clients expect."""

import functools
import re
from contextlib import suppress
from itertools import pairwise

from matplotlib import collections, colors, container, patches

from .axis import Axis

# The labels that matplotlib gives to what has none.
AUTOMATIC = re.compile(r"_(?:child|container)(\d+)")


def describe(figure) -> dict:
    """The chart of a figure, or all of its charts; `{}` if it is empty."""
    parts = [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]
    if not any(axes.has_data() for axes in parts):
        return {}
    if len(parts) == 1:
        return _chart(parts[0])
    return {"type": "superchart", "title": figure.get_suptitle(), "elements": [_chart(axes) for axes in parts]}


def remember_boxes(module) -> None:
    """Makes `matplotlib.axes` keep the numbers of box plots; the picture alone has too few of them."""
    bxp = module.Axes.bxp

    @functools.wraps(bxp)
    def bxp_and_remember(axes, bxpstats, *args, **kwargs):
        artists = bxp(axes, bxpstats, *args, **kwargs)
        axes.__dict__.setdefault("_oncebox_boxes", []).extend(zip(artists["medians"], bxpstats))
        return artists

    module.Axes.bxp = bxp_and_remember


def _chart(axes) -> dict:
    title = axes.get_title() or None
    if axes.name != "3d":
        for kind, find in (("box_and_whisker", _boxes), ("pie", _wedges), ("bar", _bars)):
            if found := find(axes):
                elements, flip = found
                labels = {} if kind == "pie" else _labels(axes, flip)
                return {"type": kind, "title": title, "elements": elements, **labels}
        found = _points(axes)
        if found is not None:
            kind, elements = found
            return {"type": kind, "title": title, "elements": elements, **_labels(axes), **_ticks(axes)}
    return {"type": "unknown", "title": title, "elements": []}


def _labels(axes, flip=False):
    """The labels of the axes. E2B exchanges them if bars or boxes lie."""
    x, y = Axis(axes.xaxis).label_and_unit(), Axis(axes.yaxis).label_and_unit()
    if flip:
        x, y = y, x
    return {"x_label": x[0], "y_label": y[0], "x_unit": x[1], "y_unit": y[1]}


def _ticks(axes):
    described = {}
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        ticks, labels, scale = Axis(axis).ticks()
        described |= {f"{name}_ticks": ticks, f"{name}_tick_labels": labels, f"{name}_scale": scale}
    return described


def _boxes(axes):
    elements, flip = [], False
    for median, numbers in getattr(axes, "_oncebox_boxes", []):
        if median.axes is not axes:
            continue  # removed since
        (x, y) = (median.get_xdata(orig=False), median.get_ydata(orig=False))
        flip = x[0] == x[-1] and y[0] != y[-1]
        axis, along = (axes.yaxis, y) if flip else (axes.xaxis, x)
        elements.append({
            "label": Axis(axis).label_at((along[0] + along[-1]) / 2),
            "min": float(numbers["whislo"]),
            "first_quartile": float(numbers["q1"]),
            "median": float(numbers["med"]),
            "third_quartile": float(numbers["q3"]),
            "max": float(numbers["whishi"]),
            "outliers": [float(outlier) for outlier in numbers.get("fliers", ())],
        })
    return (elements, flip) if elements else None


def _wedges(axes):
    elements = [
        # Angles of pies have the precision of seven digits.
        {"label": wedge.get_label(), "angle": float(f"{abs(wedge.theta2 - wedge.theta1):.7g}"), "radius": float(wedge.r)}
        for wedge in axes.patches
        if type(wedge) is patches.Wedge
    ]
    return (elements, False) if elements else None


def _bars(axes):
    groups, flip, legend = [], False, _legend(axes)
    for bars in axes.containers:
        drawn = [bar for bar in bars if bar.axes is axes] if isinstance(bars, container.BarContainer) else []
        if drawn:
            flip = bars.orientation == "horizontal"
            groups.append((bars.get_label(), drawn[0], [_span(bar, flip) for bar in drawn]))
    groups += [(patch.get_label(), patch, spans) for patch in axes.patches if (spans := _spans(patch))]
    axis = Axis(axes.yaxis if flip else axes.xaxis)
    middles = _middles([spans for _, _, spans in groups])
    elements = []
    for number, ((label, patch, spans), places) in enumerate(zip(groups, middles)):
        if not label or label.startswith("_"):
            label = legend.get(_hex(patch.get_facecolor()), f"Group {number}")
        for name, (_, _, value) in zip(_bar_names(axis, spans, places), spans):
            elements.append({"label": name, "group": str(label), "value": float(value)})
    return (elements, flip) if elements else None


def _span(bar, flip):
    """The start, the end and the length of a bar."""
    if flip:
        return bar.get_y(), bar.get_y() + bar.get_height(), bar.get_width()
    return bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()


def _middles(groups):
    """The middle of each bar; for bars side by side, one of each group, the middle of all of them."""
    middles = [[(start + end) / 2 for start, end, _ in spans] for spans in groups]
    if len({len(places) for places in middles}) != 1:
        return middles
    beside = (
        max(places) - min(places) <= sum(abs(end - start) for start, end, _ in spans)
        for places, spans in zip(zip(*middles), zip(*groups))
    )
    return [[sum(places) / len(places) for places in zip(*middles)]] * len(groups) if all(beside) else middles


def _bar_names(axis, spans, places):
    """Names bars by their places, and those of a histogram by their ranges."""
    room = 1e-6 * abs(spans[0][1] - spans[0][0])
    touch = len(spans) > 1 and all(abs(a[1] - b[0]) <= room for a, b in pairwise(spans))
    if touch and not axis.names_ticks() and any(abs(place - round(place)) > room for place in places):
        return [f"{axis.label_at(start)} – {axis.label_at(end)}" for start, end, _ in spans]
    return [axis.label_at(place) for place in places]


def _spans(patch):
    """The bars of a histogram that is one patch; none for every other patch."""
    if isinstance(patch, patches.StepPatch) and patch.orientation == "vertical":
        values, edges, _ = patch.get_data()
        return list(zip(edges, edges[1:], values))
    if type(patch) is not patches.Polygon:
        return []
    # `hist(histtype="step")` draws up and down at each edge: (a, 0), (a, 3), (b, 3), (b, 5), (c, 5), (c, 0).
    corners = patch.get_xy()
    corners = corners[: corners[:, 0].argmax() + 2]
    x, y = corners.T
    if len(x) < 4 or len(x) % 2 or (x[::2] != x[1::2]).any() or (y[1:-1:2] != y[2::2]).any():
        return []
    return list(zip(x[1:-1:2], x[2::2], y[1:-1:2]))


def _points(axes):
    """The kind of an axes with points and lines, and each series; `None` if that is not what it shows."""
    if any(isinstance(part, collections.PatchCollection) or _fills(part) == "y" for part in axes.collections):
        return None  # distributions, such as violins
    x, y = Axis(axes.xaxis), Axis(axes.yaxis)
    dots = [dots for dots in axes.collections if isinstance(dots, collections.PathCollection)]
    dots = [dots for dots in dots if len(dots.get_offsets())]
    lines = _lines(axes)
    series = [{"label": str(part.get_label()), "points": _dots(part, x, y)} for part in dots]
    for line, name in lines:
        points = zip(x.values(line.get_xdata()), y.values(line.get_ydata()))
        series.append({"label": name, "points": [list(point) for point in points]})
    if dots or lines:
        is_scatter = all(line.get_linestyle() == "None" for line, _ in lines)
        return "scatter" if dots or is_scatter else "line", series
    legend = _legend(axes)
    series = [
        {"label": _name(part, legend, part.get_facecolor()), "points": _edge(part, x, y)}
        for part in axes.collections
        if _fills(part) == "x"
    ]
    return ("line", series) if series or axes.lines or not axes.has_data() else None


def _fills(part):
    """The direction along which a collection fills the room between two curves, if it does."""
    return getattr(part, "t_direction", None)


def _dots(dots, x, y):
    # Places that are not drawn are masked.
    return [[None if a is None else x.value(a), None if b is None else y.value(b)] for a, b in dots.get_offsets().tolist()]


def _lines(axes):
    """The lines that show data, and their labels. Those of error bars, for one, are left out."""
    left_out, names, legend = [], {}, _legend(axes)
    for parts in axes.containers:
        if isinstance(parts, container.ErrorbarContainer):
            left_out += parts[1]
            names[parts[0]] = parts.get_label()
        elif isinstance(parts, container.StemContainer):
            left_out.append(parts.baseline)
            names[parts.markerline] = parts.get_label()
    found = [
        line
        for line in axes.lines
        if line not in left_out
        and len(line.get_xdata())
        and all(line.get_transform().contains_branch_seperately(axes.transData))
    ]
    # Two points above or beside each other are a guide for the eye, or show an error, unless there is nothing else.
    for is_guide in (lambda x, y: x[0] == x[1] or y[0] == y[1], lambda x, y: x[0] == x[1]):
        others = [line for line in found if len(line.get_xydata()) != 2 or not is_guide(*line.get_xydata().T)]
        if others:
            found = others
            break
    return [(line, _name(line, legend, line.get_color(), names.get(line))) for line in found]


def _edge(fill, x, y):
    """The curve of a filled area: the one that is not a straight base, or the upper one of two."""
    points = []
    for path in fill.get_paths():
        count = (len(path.vertices) - 3) // 2
        there, back = path.vertices[1 : count + 1], path.vertices[count + 2 : 2 * count + 2][::-1]
        if count and (there[:, 1] == there[0, 1]).all():
            there = back
        elif count and (back[:, 1] != back[0, 1]).any():
            there = there.copy()
            there[:, 1] = there[:, 1].clip(back[:, 1])
        points += [[x.value(a), y.value(b)] for a, b in there.tolist()]
    return points


def _name(part, legend, color, label=None):
    """The label of a series. One that matplotlib made of a number gives way to the legend's, or becomes `Line 3`."""
    label = str(label or part.get_label())
    number = AUTOMATIC.fullmatch(label)
    return legend.get(_hex(color), f"Line {number[1]}") if number else label


def _legend(axes):
    """The texts of the legends, by color; seaborn and pandas label nothing else."""
    texts = {}
    for legend in filter(None, [axes.get_legend(), *axes.figure.legends]):
        for handle, text in zip(legend.legend_handles, legend.get_texts()):
            read = getattr(handle, "get_color", None) or getattr(handle, "get_facecolor", lambda: None)
            texts.setdefault(_hex(read()), text.get_text())
    return texts


def _hex(color):
    """A color as text; `None` if there are several, or none."""
    with suppress(ValueError):
        return colors.to_hex(color[0] if getattr(color, "ndim", 1) == 2 and len(color) == 1 else color)
    return None
