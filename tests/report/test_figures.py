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
