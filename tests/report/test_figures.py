import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from castnet.report import figures

NAMES = ["castings_passed_by_the_final_inspection_7", "castings_rejected_by_the_final_inspection_7"]


@pytest.mark.parametrize("names", [NAMES, ["CASTING_DEFECTIVE", "good"], ["不合格品" * 4, "良品" * 6]])
def test_names_of_classes_lie_on_the_figure_and_over_no_others(names: list[str]) -> None:
    images = np.zeros((10, 8, 8), np.uint8)
    matrix = figures.confusion_matrix(np.array([[3, 1], [0, 4]]), names)
    grid = figures.predictions(images, [0, 1] * 5, [1, 0] * 5, [0.5] * 10, names)
    for figure, shown in ((matrix, names), (grid, ["predicted"])):
        boxes = _boxes(figure, shown)
        assert len(boxes) >= 4
        for index, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert not any(box.overlaps(other) for other in boxes[:index])


def test_names_of_classes_may_be_of_other_letters(recwarn: pytest.WarningsRecorder) -> None:
    if not figures.INSTALLED & set(figures.FALLBACKS):
        pytest.skip("no font with Chinese letters on this machine (apt-get install fonts-noto-cjk)")
    _boxes(figures.confusion_matrix(np.array([[3, 1], [0, 4]]), ["不合格品", "良品"]), [])
    assert not [warning for warning in recwarn if "missing from font" in str(warning.message)]


def _boxes(figure: Figure, shown: list[str]) -> list:  # type: ignore[type-arg]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if any(name in text.get_text() for name in shown)]
    return [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_visible()]


def test_figures_show_which_of_the_two_mistakes_is_which() -> None:
    matrix = figures.confusion_matrix(np.array([[3, 1], [0, 4]]), ["bad", "good"])  # rows true, columns predicted
    shown = {text.get_position(): text.get_text() for text in matrix.axes[0].texts}
    assert shown == {(0, 0): "3\n75.0%", (1, 0): "1\n25.0%", (0, 1): "0\n0.0%", (1, 1): "4\n100.0%"}
    of_one = figures.confusion_matrix(np.array([[2, 2], [0, 0]]), ["bad", "good"])  # a share of nothing is none
    assert [text.get_text() for text in of_one.axes[0].texts] == ["2\n50.0%", "2\n50.0%", "0\n–", "0\n–"]
    assert (matrix.axes[0].get_xlabel(), matrix.axes[0].get_ylabel()) == ("predicted", "true")
    (rates,) = figures.rates_by_threshold(np.array([0.9, 0.4]), np.array([True, False]), 0.5).axes
    at = {line.get_label(): np.asarray(line.get_ydata()) for line in rates.lines}  # of thresholds in steps of 0.002
    assert [float(at["escape rate"][row]) for row in (100, 300, 475)] == [0, 0, 1]
    assert [float(at["overkill rate"][row]) for row in (100, 300, 475)] == [1, 0, 0]
    grid = figures.predictions(np.zeros((2, 8, 8), np.uint8), [0, 1], [1, 1], [0.1, 0.2], ["bad", "good"])
    titles = grid.axes[0].texts
    assert [title.get_text() for title in titles] == [
        f"true {true}\npredicted good\nP(defect) {p}" for true, p in (("bad", "0.100"), ("good", "0.200"))
    ]
    assert [title.get_color() for title in titles] == [figures.BAD, figures.GOOD]


def test_a_grid_shows_every_image_upright_and_as_bright_as_it_is() -> None:
    images = np.full((11, 8, 8), 64, np.uint8)
    images[:, :4] = 192  # the upper half
    titles = ["bad", "good", *["bad"] * 9]
    canvas = FigureCanvasAgg(
        figure := figures.sample_images(images, [titles[1:].index(title) for title in titles], ["good", "bad"], 1)
    )
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., 0]
    for place in range(11):
        column, top = 200 * (place % 5) + 100, 245 * (place // 5)  # pixels
        assert (grey[top + 100, column], grey[top + 190, column]) == (192, 64)
    shown = [(title.get_text(), title.get_color()) for title in figure.axes[0].texts]
    assert shown == [(title, figures.GOOD if title == "good" else figures.BAD) for title in titles]


def test_lines_stand_where_their_axes_say() -> None:
    (curve,) = figures.precision_recall(np.array([0.5, 1.0]), np.array([0.9, 0.1])).axes
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("recall of the defect class", "precision")
    assert (list(curve.lines[0].get_xdata()), list(curve.lines[0].get_ydata())) == ([0.9, 0.1], [0.5, 1.0])
    (judged,) = figures.risk_coverage(np.array([0, 0.5, 1 / 3, 0.25]), 0.75).axes
    assert list(judged.lines[0].get_xdata()) == [0.25, 0.5, 0.75, 1]
    assert (list(judged.lines[1].get_xdata()), judged.lines[1].get_label()) == ([0.75, 0.75], "judged: 75.0%")
    (rates,) = figures.rates_by_threshold(np.array([0.9, 0.4]), np.array([True, True]), 0.3).axes  # none is good
    assert [line.get_label() for line in rates.lines] == ["escape rate", "threshold 0.3"]
    assert list(rates.lines[1].get_xdata()) == [0.3, 0.3]


def test_curves_begin_with_epoch_1_and_go_over_what_was_not_validated() -> None:
    gap = float("nan")
    history = {"train/accuracy": [0.5, 0.6, 0.7], "val/accuracy": [gap, 0.8, gap]}
    figure = figures.curves({**history, "train/loss": [3, 2, 1], "val/loss": [gap, 4, gap]})
    lines = [
        (axis.get_ylabel(), line.get_label(), list(line.get_xdata()), list(line.get_ydata()))
        for axis in figure.axes
        for line in axis.lines
    ]
    assert lines == [
        ("accuracy", "train", [1, 2, 3], [0.5, 0.6, 0.7]),
        ("accuracy", "val", [2], [0.8]),
        ("loss", "train", [1, 2, 3], [3, 2, 1]),
        ("loss", "val", [2], [4]),
    ]


def test_every_part_is_a_column_above_its_own_thumbnail_and_what_is_rejected_lies_in_the_red() -> None:
    margins = [np.array([number, number - 40.0]) for number in range(31)]
    defective = [np.array([True, False])] * 31
    figure = figures.parts_against_cut(margins, defective, [np.full((4, 4), number, np.uint8) for number in range(31)])
    assert [len(row.collections) for row in figure.axes] == [30, 1]
    drawn = [dots for row in figure.axes for dots in row.collections]
    assert [list(np.asarray(dots.get_offsets())[:, 1]) for dots in drawn] == [list(of) for of in margins]
    assert {tuple(map(to_hex, dots.get_facecolors()[:, :3])) for dots in drawn} == {(figures.BAD, figures.GOOD)}
    thumbnails = [inset.images[0].get_array() for row in figure.axes for inset in row.child_axes]
    assert [int(np.max(thumbnail)) for thumbnail in thumbnails] == list(range(31))
    for row in figure.axes:
        (red,) = row.patches
        assert (red.get_y(), to_hex(red.get_facecolor())) == (0, figures.BAD)
