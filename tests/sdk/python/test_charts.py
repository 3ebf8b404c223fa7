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
    import_numbers = "import pandas as pd, numpy as np\n"
    [chart] = charts(shared, import_numbers + "plt.plot([1, 2, 3], [1, np.nan, np.inf])")
    assert chart.to_dict()["elements"][0]["points"] == [[1.0, 1.0], [2.0, None], [3.0, None]]
    # Days since 1970, the unit in which pandas draws dates.
    [chart] = charts(shared, import_numbers + "pd.Series([1, 2], index=pd.date_range('2026-01-01', periods=2)).plot()")
    assert chart.to_dict()["elements"][0]["points"] == [[20454.0, 1.0], [20455.0, 2.0]]


@pytest.mark.parametrize(
    "code", ["plt.subplots()", "plt.boxplot([1, 2, 3], patch_artist=True)", "plt.plot(range(250_000))"]
)
def test_what_cannot_be_described_is_a_picture_nevertheless(shared, code):
    assert charts(shared, code) == [None]


def test_a_figure_comes_once(shared):
    assert [chart.type.value for chart in charts(shared, "plt.plot([1, 2]); plt.show(); plt.bar([1, 2], [3, 4]); plt.show()")] == ["line", "bar"]
    execution = shared.run_code("figure, axes = plt.subplots()\naxes.plot([1, 2])\nfigure")
    assert [(result.is_main_result, result.chart.type.value) for result in execution.results] == [(True, "line")]
