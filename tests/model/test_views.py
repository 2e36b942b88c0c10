import pytest
import torch

from castnet.data.augment import Augmentation
from castnet.model.views import VIEWS, chosen, turned, turned_back
from tests.model.test_start import SIZE, classifier, images


def test_the_eight_views_are_all_different_and_can_be_undone() -> None:
    image = images()[:1]
    views = [turned(image, view) for view in range(VIEWS)]
    assert len({view.numpy().tobytes() for view in views}) == VIEWS
    assert torch.equal(views[0], image)
    for view, picture in enumerate(views):
        assert torch.equal(turned_back(picture, view), image)


@pytest.mark.parametrize("views", [2, 4, 8])
def test_a_verdict_over_several_views_does_not_depend_on_which_of_them_the_part_shows(views: int) -> None:
    one, several = classifier(), classifier()
    several.network.load_state_dict(one.network.state_dict())
    several.hparams["views"] = views
    single = torch.stack([one(turned(images(), view)) for view in chosen(views)])
    assert single.std(0).min() > 0
    for view in chosen(views):
        torch.testing.assert_close(several(turned(images(), view)), single.mean(0))


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_evidence_over_several_views_lies_where_it_is_on_the_part(views: int) -> None:
    judge, explained = classifier(), torch.arange(4)
    judge.hparams["views"] = views
    logits, evidence = judge.explain(images(), explained)
    torch.testing.assert_close(logits, judge(images()))
    for view in chosen(views):
        torch.testing.assert_close(judge.explain(turned(images(), view), explained)[1], turned(evidence, view))
    assert evidence.shape[-1] == SIZE // 8 - 2


@pytest.mark.parametrize(
    ("lying", "views"),
    [
        ({}, 1),
        ({"rotation": 180}, 1),  # mirrored images, which training never saw, would be judged by accident
        ({"flip": True, "rotation": 5}, 2),
        ({"flip": True, "turns": 2}, 4),
        ({"flip": True, "turns": 6}, 4),
        ({"flip": True, "turns": 4}, 8),
        ({"flip": True, "rotation": 180}, 8),
    ],
)
def test_judged_are_the_views_that_training_shows(lying: dict[str, float], views: int) -> None:
    assert Augmentation(**lying).views == views  # type: ignore[arg-type]


def test_two_views_are_mirrored_and_four_upside_down_too() -> None:
    image = images()[:1]
    two = [image, image.flip(-1)]
    shown = {view.numpy().tobytes() for view in two}
    assert {turned(image, view).numpy().tobytes() for view in chosen(2)} == shown
    shown |= {view.flip(-2).numpy().tobytes() for view in two}
    assert {turned(image, view).numpy().tobytes() for view in chosen(4)} == shown
