import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
