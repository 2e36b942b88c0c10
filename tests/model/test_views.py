import torch

from castnet.model.views import VIEWS, turned, turned_back
from tests.model.test_start import SIZE, classifier, images


def test_the_eight_views_are_all_different_and_can_be_undone() -> None:
    image = images()[:1]
    views = [turned(image, view) for view in range(VIEWS)]
    assert len({view.numpy().tobytes() for view in views}) == VIEWS
    assert torch.equal(views[0], image)
    for view, picture in enumerate(views):
        assert torch.equal(turned_back(picture, view), image)


def test_a_verdict_over_all_views_does_not_depend_on_how_the_part_lies() -> None:
    one, all_views = classifier(), classifier()
    all_views.network.load_state_dict(one.network.state_dict())
    all_views.hparams["views"] = VIEWS
    single = torch.stack([one(turned(images(), view)) for view in range(VIEWS)])
    assert single.std(0).min() > 0
    for view in range(VIEWS):
        torch.testing.assert_close(all_views(turned(images(), view)), single.mean(0))


def test_evidence_over_all_views_lies_where_it_is_on_the_part() -> None:
    judge, chosen = classifier(), torch.arange(4)
    judge.hparams["views"] = VIEWS
    logits, evidence = judge.explain(images(), chosen)
    torch.testing.assert_close(logits, judge(images()))
    for view in range(VIEWS):
        torch.testing.assert_close(judge.explain(turned(images(), view), chosen)[1], turned(evidence, view))
    assert evidence.shape[-1] == SIZE // 8 - 2
