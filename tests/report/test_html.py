from pathlib import Path

import pytest
from playwright.sync_api import Browser

from castnet.audit.audit import audit
from tests.conftest import PATIENCE


@pytest.mark.parametrize("page", ["report", "audit"])
def test_a_page_fits_a_telephone_and_hides_nothing(
    browser: Browser, page: str, trained: Path, castings: Path, tmp_path: Path
) -> None:
    if page == "audit":
        audit(castings / "test", tmp_path / "out", progress=False)
    file = trained / "report.html" if page == "report" else tmp_path / "out" / "audit.html"
    telephone = browser.new_context(viewport={"width": 390, "height": 800}, is_mobile=True).new_page()
    telephone.set_default_timeout(1000 * PATIENCE)
    telephone.goto(file.as_uri())
    assert telephone.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    pictures = telephone.locator("img")
    assert pictures.count() > 5
    assert pictures.evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 0)")
    telephone.context.close()
