"""Figures as data: every number of `result.chart`, for every kind of chart."""

import pytest

pytestmark = pytest.mark.covers("result.chart")

# matplotlib's ticks for 1 to 3 and 4 to 6.
X = ["0.75", "1.00", "1.25", "1.50", "1.75", "2.00", "2.25", "2.50", "2.75", "3.00", "3.25"]
Y = ["3.75", "4.00", "4.25", "4.50", "4.75", "5.00", "5.25", "5.50", "5.75", "6.00", "6.25"]
NO_LABELS = {"x_label": None, "y_label": None, "x_unit": None, "y_unit": None}
TICKS = {
    "x_ticks": pytest.approx([float(tick) for tick in X]), "x_tick_labels": X, "x_scale": "linear",
    "y_ticks": pytest.approx([float(tick) for tick in Y]), "y_tick_labels": Y, "y_scale": "linear",
}
POINTS = [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
LINE = {"type": "line", "title": None, "elements": [{"label": "Line 0", "points": POINTS}], **NO_LABELS, **TICKS}
BARS = [{"label": "a", "group": "Group 0", "value": 1.0}, {"label": "b", "group": "Group 0", "value": 2.5}]
BAR = {"type": "bar", "title": None, "elements": BARS, **NO_LABELS}

CHARTS = {
    "line": (
        "plt.plot([1, 2, 3], [4, 5, 6], label='L'); plt.title('T'); plt.xlabel('Time (s)'); plt.ylabel('V [mV]')",
        {"type": "line", "title": "T", "elements": [{"label": "L", "points": POINTS}],
         "x_label": "Time (s)", "y_label": "V [mV]", "x_unit": "s", "y_unit": "mV", **TICKS},
    ),
    "a line that only guides the eye": ("plt.plot([1, 2, 3], [4, 5, 6]); plt.axhline(5)", LINE),
    "scatter": (
        "plt.scatter([1, 2, 3], [4, 5, 6])",
        {"type": "scatter", "title": None, "elements": [{"label": "_child0", "points": POINTS}], **NO_LABELS, **TICKS},
    ),
    "bar": (
        "plt.bar(['a', 'b'], [1, 2.5], label='G'); plt.xlabel('name'); plt.ylabel('Height (m)')",
        {"type": "bar", "title": None, "elements": [{**bar, "group": "G"} for bar in BARS],
         "x_label": "name", "y_label": "Height (m)", "x_unit": None, "y_unit": "m"},
    ),
    "bars that lie": (
        "plt.barh(['a', 'b'], [1, 2.5]); plt.xlabel('Length (m)')",
        {**BAR, "y_label": "Length (m)", "y_unit": "m"},
    ),
    "pie": (
        "plt.pie([1, 3], labels=['a', 'b']); plt.title('T')",
        {"type": "pie", "title": "T", "elements": [
            {"label": "a", "angle": 90.0, "radius": 1.0}, {"label": "b", "angle": 270.0, "radius": 1.0}]},
    ),
    "box_and_whisker": (
        "plt.boxplot([[1, 2, 3, 5, 8], [2, 4, 9, 9, 12, 40]], tick_labels=['a', 'b'], patch_artist=True)",
        {"type": "box_and_whisker", "title": None, "elements": [
            {"label": "a", "min": 1.0, "first_quartile": 2.0, "median": 3.0, "third_quartile": 5.0, "max": 8.0, "outliers": []},
            {"label": "b", "min": 2.0, "first_quartile": 5.25, "median": 9.0, "third_quartile": 11.25, "max": 12.0, "outliers": [40.0]},
         ], **NO_LABELS},
    ),
    "superchart": (
        "f, axes = plt.subplots(1, 2); axes[0].bar(['a', 'b'], [1, 2.5]); axes[1].pie([1]); f.suptitle('S')",
        {"type": "superchart", "title": "S", "elements": [
            BAR, {"type": "pie", "title": None, "elements": [{"label": "", "angle": 360.0, "radius": 1.0}]}]},
    ),
    "unknown": ("plt.imshow([[1, 2]]); plt.title('T')", {"type": "unknown", "title": "T", "elements": []}),
}


def charts(sandbox, code):
    execution = sandbox.run_code(f"import matplotlib.pyplot as plt\n{code};")
    # Describing a figure changes nothing else about it, and prints nothing.
    assert execution.error is None and execution.logs.stderr == []
    assert all(result.png and result.text.startswith("<Figure size") for result in execution.results)
    return [result.chart for result in execution.results]


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_described(shared, kind):
    code, expected = CHARTS[kind]
    [chart] = charts(shared, code)
    assert chart.to_dict() == expected
    assert chart.type.value == expected["type"] and len(chart.elements) == len(expected["elements"])


@pytest.mark.parametrize(
    ("code", "scale", "ticks", "first"),
    [
        ("plt.xscale('log'); plt.plot([1, 10], [1, 2])", "log", "$\\mathdefault{10^{0}}$", [1.0, 1.0]),
        ("plt.plot(['u', 'v'], [1, 2])", "categorical", "u", ["u", 1.0]),
        ("import datetime as d; plt.plot([d.date(2026, 1, 1), d.date(2026, 1, 2)], [1, 2])", "datetime", "01-01 00", ["2026-01-01", 1.0]),
        ("import numpy as np; plt.plot(np.array(['2026-01-01', '2026-01-02'], 'M8[D]'), [1, 2])", "datetime", "01-01 00", ["2026-01-01T00:00:00", 1.0]),
    ],
)
def test_an_axis_tells_its_scale(shared, code, scale, ticks, first):
    [chart] = charts(shared, code)
    described = chart.to_dict()
    assert described["x_scale"] == scale and ticks in described["x_tick_labels"] and described["y_scale"] == "linear"
    assert described["elements"][0]["points"][0] == first


def test_what_has_no_number_is_null(shared):
    [chart] = charts(shared, "plt.plot([1, 2, 3], [1, float('nan'), float('inf')])")
    assert chart.to_dict()["elements"][0]["points"] == [[1.0, 1.0], [2.0, None], [3.0, None]]


@pytest.mark.parametrize("code", ["plt.subplots()", "plt.plot(range(250_000))"])
def test_what_cannot_be_described_is_a_picture_nevertheless(shared, code):
    assert charts(shared, code) == [None]


# The ways to draw each kind: code, the kind, and the label with the first numbers of each element.
SETUP = """
import datetime, numpy as np, pandas as pd, seaborn as sns
days = [datetime.date(2026, 1, day) for day in (1, 2, 6)]
frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [3.0, 1, 2]}, index=["x", "y", "z"])
series = pd.Series([1, 2, 4], index=pd.date_range("2026-01-01", periods=3))
months = pd.Series([1, 2], index=pd.period_range("2026-01", periods=2, freq="M"))
tips = pd.DataFrame({"day": ["Thu", "Fri", "Thu", "Fri"], "tip": [1.0, 2, 3, 6], "who": ["m", "f", "f", "m"]})
"""
UP = [[1.0, 3.0], [2.0, 1.0]]
DAYS = [["2026-01-01T00:00:00", 1.0], ["2026-01-02T00:00:00", 2.0]]
ABC = [("a", 2.0), ("b", 2.0), ("c", 2.0)]
HISTOGRAM = [("1 – 2", 1.0), ("2 – 3", 3.0)]
BOX = (2.0, 5.25, 9.0, 11.25, 12.0, [40.0])
WAYS = [
    ("plt.plot([1, 2], [3, 1]); plt.xticks([]); plt.yticks([])", "line", [("Line 0", UP)]),
    ("plt.step([1, 2], [3, 1], label='s')", "line", [("s", UP)]),
    ("plt.semilogx([1, 2], [3, 1])", "line", [("Line 0", UP)]),
    ("plt.plot([1, 2], [3, 1]); plt.axhline(2); plt.axvline(1); plt.hlines(2, 1, 2)", "line", [("Line 0", UP)]),
    ("plt.plot([1, 2], [3, 3])", "line", [("Line 0", [[1.0, 3.0], [2.0, 3.0]])]),
    ("plt.errorbar([1, 2], [3, 1], yerr=.1, xerr=.1, capsize=3)", "line", [("Line 0", UP)]),
    ("plt.errorbar([1, 2], [3, 1], yerr=.1, label='E')", "line", [("E", UP)]),
    ("plt.plot([1, 2], [3, 1]); plt.fill_between([1, 2], [2, 0], [4, 2])", "line", [("Line 0", UP)]),
    ("plt.fill_between([1, 2], [3, 1])", "line", [("Line 0", UP)]),
    ("plt.stackplot([1, 2], [3, 1], [1, 1], labels=['u', 'v'])", "line", [("u", UP), ("v", [[1.0, 4.0], [2.0, 2.0]])]),
    ("plt.plot(np.array(days, 'M8[ns]'), [1, 2, 3])", "line", [("Line 0", DAYS)]),
    ("plt.plot(series)", "line", [("Line 0", DAYS)]),
    ("frame.plot()", "line", [("a", [[0.0, 1.0]]), ("b", [[0.0, 3.0]])]),
    ("frame.plot.area()", "line", [("a", [[0.0, 1.0]]), ("b", [[0.0, 4.0]])]),
    ("series.plot()", "line", [("Line 0", DAYS)]),
    ("months.plot()", "line", [("Line 0", [["2026-01-01T00:00:00", 1.0], ["2026-02-01T00:00:00", 2.0]])]),
    ("sns.lineplot(tips, x='day', y='tip', hue='who', errorbar=None)", "line", [("m", [["Thu", 1.0], ["Fri", 6.0]]), ("f", [["Thu", 3.0], ["Fri", 2.0]])]),
    ("sns.pointplot(tips, x='day', y='tip')", "line", [("Line 0", [["Thu", 2.0], ["Fri", 4.0]])]),
    ("sns.kdeplot(tips.tip, fill=True)", "line", [("Line 0", [])]),
    ("plt.plot([1, 2], [3, 1], 'o')", "scatter", [("Line 0", UP)]),
    ("plt.stem([1, 2], [3, 1])", "scatter", [("Line 0", UP)]),
    ("plt.scatter([1, 2], [3, 1], c=[1, 2]); plt.colorbar()", "scatter", [("_child0", UP)]),
    ("plt.scatter([1, 2, np.nan], [3, 1, 1], label='S'); plt.plot([1, 2], [3, 1])", "scatter", [("S", UP), ("Line 1", UP)]),
    ("plt.scatter(days, [1, 2, 3])", "scatter", [("_child0", DAYS)]),
    ("plt.scatter(['u', 'v'], [3, 1])", "scatter", [("_child0", [["u", 3.0], ["v", 1.0]])]),
    ("frame.plot.scatter('a', 'b')", "scatter", [("_child0", UP)]),
    ("sns.scatterplot(tips, x='day', y='tip', hue='who')", "scatter", [("_child0", [["Thu", 1.0]])]),
    ("sns.stripplot(tips, x='day', y='tip')", "scatter", [("_child0", [["Thu", 1.0], ["Thu", 3.0]]), ("_child1", [["Fri", 2.0]])]),
    ("sns.regplot(x=[1, 2, 3], y=[3, 1, 2], n_boot=9)", "scatter", [("_child0", UP), ("Line 1", [])]),
    ("plt.bar(['a', 'b', 'c'], [2, 2, 2])", "bar", ABC),
    ("plt.barh(['a', 'b', 'c'], [2, 2, 2])", "bar", ABC),
    ("plt.bar([2020, 2022], [1, 2.5])", "bar", [("2020", 1.0), ("2022", 2.5)]),
    ("plt.bar(days, [1, 2, 3])", "bar", [("2026-01-01", 1.0), ("2026-01-02", 2.0), ("2026-01-06", 3.0)]),
    ("plt.bar(['a', 'b'], [1, np.nan], yerr=.1)", "bar", [("a", 1.0), ("b", None)]),
    ("plt.bar(['a', 'b'], [1, 20], log=True); plt.plot(['a', 'b'], [1, 20])", "bar", [("a", 1.0), ("b", 20.0)]),
    ("plt.bar_label(plt.bar(['a'], [2])); plt.axhline(1)", "bar", [("a", 2.0)]),
    ("plt.bar([-.2, .8], [1, 2], .4); plt.bar([.2, 1.2], [3, 4], .4); plt.xticks([0, 1], ['a', 'b'])", "bar", [("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 4.0)]),
    ("plt.bar(['a', 'b'], [1, 2]); plt.bar(['a', 'b'], [3, 4], bottom=[1, 2])", "bar", [("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 4.0)]),
    ("plt.hist([1, 2, 2, 3], bins=2)", "bar", HISTOGRAM),
    ("plt.hist([1, 2, 2, 3], bins=2, orientation='horizontal')", "bar", HISTOGRAM),
    ("plt.hist([1, 2, 2, 3], bins=2, histtype='step')", "bar", HISTOGRAM),
    ("plt.hist([1, 2, 2, 3], bins=2, histtype='stepfilled')", "bar", HISTOGRAM),
    ("plt.hist([[1, 2, 2, 3], [1]], bins=2)", "bar", [("1.5", 1.0), ("2.5", 3.0), ("1.5", 1.0), ("2.5", 0.0)]),
    ("plt.stairs([1, 3], [1, 2, 3])", "bar", HISTOGRAM),
    ("frame.plot.bar()", "bar", [("x", 1.0), ("y", 2.0), ("z", 3.0), ("x", 3.0), ("y", 1.0), ("z", 2.0)]),
    ("frame.a.plot.barh(stacked=True)", "bar", [("x", 1.0), ("y", 2.0), ("z", 3.0)]),
    ("series.plot.bar()", "bar", [("2026-01-01", 1.0), ("2026-01-02", 2.0), ("2026-01-03", 4.0)]),
    ("sns.barplot(tips, x='day', y='tip', hue='who')", "bar", [("Thu", 1.0), ("Fri", 6.0), ("Thu", 3.0), ("Fri", 2.0)]),
    ("sns.countplot(tips, x='day')", "bar", [("Thu", 2.0), ("Fri", 2.0)]),
    ("sns.histplot([1, 2, 2, 3], bins=2, kde=True)", "bar", HISTOGRAM),
    ("plt.pie([1, 3], labels=['a', 'b'], autopct='%d', shadow=True, explode=[0, .1])", "pie", [("a", 90.0), ("b", 270.0)]),
    ("plt.pie([1, 3], wedgeprops={'width': .4}); plt.gca().add_artist(plt.Circle((0, 0), .5))", "pie", [("", 90.0), ("", 270.0)]),
    ("frame.a.plot.pie()", "pie", [("x", 60.0), ("y", 120.0), ("z", 180.0)]),
    ("plt.boxplot([2, 4, 9, 9, 12, 40])", "box_and_whisker", [("1", *BOX)]),
    ("plt.boxplot([[2, 4, 9, 9, 12, 40]], tick_labels=['a'], showmeans=True)", "box_and_whisker", [("a", *BOX)]),
    ("plt.boxplot([[2, 4, 9, 9, 12, 40]], tick_labels=['a'], patch_artist=True)", "box_and_whisker", [("a", *BOX)]),
    ("plt.boxplot([[2, 4, 9, 9, 12, 40]], tick_labels=['a'], vert=False)", "box_and_whisker", [("a", *BOX)]),
    ("plt.boxplot([1, 2, 3]); plt.cla(); plt.plot([1, 2], [3, 1])", "line", [("Line 0", UP)]),
    ("frame.plot.box()", "box_and_whisker", [("a", 1.0, 1.5, 2.0, 2.5, 3.0, []), ("b", 1.0, 1.5, 2.0, 2.5, 3.0, [])]),
    ("frame.boxplot()", "box_and_whisker", [("a", 1.0, 1.5, 2.0, 2.5, 3.0, []), ("b", 1.0, 1.5, 2.0, 2.5, 3.0, [])]),
    ("sns.boxplot(tips, y='day', x='tip')", "box_and_whisker", [("Thu", 1.0, 1.5, 2.0, 2.5, 3.0, []), ("Fri", 2.0, 3.0, 4.0, 5.0, 6.0, [])]),
    ("plt.subplots(1, 2)[1][0].pie([1])", "superchart", ["pie", "line"]),
    ("plt.plot([1, 2]); plt.twinx().bar([0, 1], [2, 1])", "superchart", ["line", "bar"]),
    ("frame.plot(subplots=True)", "superchart", ["line", "line"]),
    ("sns.catplot(tips, x='day', y='tip', col='who', kind='bar')", "superchart", ["bar", "bar"]),
    ("plt.violinplot([[1, 2, 3]])", "unknown", []),
    ("sns.violinplot(tips, x='day', y='tip')", "unknown", []),
    ("sns.heatmap(np.eye(3))", "unknown", []),
    ("plt.contourf([[1, 2], [3, 4]])", "unknown", []),
    ("plt.axes(projection='3d').scatter([1, 2], [1, 2], [1, 2])", "unknown", []),
]


def summary(element):
    """What the table above has of an element of a chart as the SDK reads it."""
    if hasattr(element, "points"):
        return element.label, [list(point) for point in element.points]
    if hasattr(element, "angle"):
        return element.label, element.angle
    if hasattr(element, "median"):
        return element.label, element.min, element.first_quartile, element.median, element.third_quartile, element.max, element.outliers
    return element.type.value if hasattr(element, "elements") else (element.label, element.value)


def begins_as(read, expected):
    """Whether an element is the expected one. Of its points, only the first ones are expected."""
    if isinstance(expected, tuple) and isinstance(expected[1], list):
        return (read[0], read[1][: len(expected[1])]) == expected
    return read == expected


def test_each_way_to_draw_a_kind_of_chart(shared):
    # One execution: each figure is shown where its code ends, and is an output of its own.
    found = charts(shared, SETUP + "".join(f"{code}; plt.show()\n" for code, _, _ in WAYS) + "None")
    assert len(found) == len(WAYS)
    for chart, (code, kind, elements) in zip(found, WAYS):
        assert chart is not None and chart.type.value == kind, (code, chart and chart.to_dict())
        read = [summary(element) for element in chart.elements]
        assert len(read) == len(elements) and all(map(begins_as, read, elements)), (code, read)


def test_the_old_name_of_an_argument_still_works(shared):
    [result] = shared.run_code("import matplotlib.pyplot as plt\nplt.boxplot([[1, 2, 3]], labels=['a']);").results
    assert [(box.label, box.median) for box in result.chart.elements] == [("a", 2.0)]


def test_a_figure_comes_once(shared):
    assert [chart.type.value for chart in charts(shared, "plt.plot([1, 2]); plt.show(); plt.bar([1, 2], [3, 4]); plt.show()")] == ["line", "bar"]
    execution = shared.run_code("figure, axes = plt.subplots()\naxes.plot([1, 2])\nfigure")
    assert [(result.is_main_result, result.chart.type.value) for result in execution.results] == [(True, "line")]
