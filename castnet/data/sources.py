"""Where images come from when their folder is not there yet."""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from castnet.drawn.folder import FORMAT, PROPORTIONS, SMALLEST, generate
from castnet.errors import UserError
from castnet.files import HeldError, hold
from castnet.processes import LOOK, is_first, wait_for
from castnet.settings import Seed

KAGGLE_HANDLE = "ravirajsinh45/real-life-industrial-dataset-of-casting-product"


@with_config(extra="forbid", strict=True)
class Generated(TypedDict):
    """The castings to draw, see `castnet.drawn.folder.generate`."""

    n: Annotated[int, Field(ge=SMALLEST)]
    seed: Seed
    pairs: NotRequired[bool]


def download_casting(root: Path) -> None:
    """Fetch the public casting set with kagglehub and place its 300 × 300 images under `root`.

    Raises:
        UserError: no connection, or what came is not the published set; `root` is not made then.
    """
    import kagglehub  # brings in an HTTP stack that no other run needs

    by_hand = (
        f"to place it by hand, download https://www.kaggle.com/datasets/{KAGGLE_HANDLE} and put the folders train/ and "
        f"test/ of its casting_data/ into {root}"
    )
    try:
        download = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub raises whatever its HTTP stack does
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"data.root={root} does not exist and Kaggle cannot be reached ({reason[:120]}); {by_hand}"
        ) from error
    for train in download.rglob("train"):
        found = {part: len(list(train.parent.joinpath(*part).glob("*.jpeg"))) for part in PROPORTIONS}
        if found == PROPORTIONS:
            partial_root = root.with_name(root.name + ".partial")
            shutil.copytree(train.parent, partial_root, dirs_exist_ok=True)
            partial_root.rename(root)
            return
    raise UserError(f"{download}: Kaggle sent something else than the {sum(PROPORTIONS.values()):,} images; {by_hand}")


def obtain(source: str, root: Path, generated: Generated | None) -> None:
    """Make or fetch a source's images, unless `root` is already there; of several processes the first one does.

    Args:
        source: `generated` (drawn by castnet), `casting` (the public set) or `folder` (the user's own, never made).
        root: where the images belong.
        generated: the generated castings.

    Raises:
        UserError: the images cannot be had, or other castings than asked for were generated.
    """
    if source != "folder" and not is_first():
        wait_for(root)
    elif source == "generated":
        assert generated is not None
        while not root.exists():
            try:
                generate(root, **generated, resume=True)
            except HeldError:  # by a run beside this one, such as another of its sweep
                time.sleep(LOOK)
            except UserError:
                if not root.exists():  # else such a run has made it in this very moment
                    raise
        _require_same(root, generated)
    elif source == "casting":
        while not root.exists():
            try:
                with hold(root.with_name(f"{root.name}.partial")):
                    if not root.exists():
                        download_casting(root)
            except HeldError:
                time.sleep(LOOK)


def _require_same(root: Path, generated: Generated) -> None:
    recorded = root / "generator.json"
    try:
        found = json.loads(recorded.read_text()) if recorded.exists() else "no generated castings"
    except ValueError:  # neither text nor JSON
        found = f"a broken {recorded.name}"
    asked = {"format": FORMAT, "pairs": False, **generated}
    if found == asked:
        return
    settings: dict[str, Any] = {**generated}
    if not isinstance(found, dict) or found.keys() != asked.keys() or found | settings != asked:
        # And no setting would make it the same.
        raise UserError(f"data.root={root}: holds {found}, asked for {asked}; remove it or name another data.root")
    differ = [key for key in settings if found.get(key) != settings[key]]
    theirs, ours = (" ".join(f"data.generate.{key}={of.get(key)}" for key in differ) for of in (found, settings))
    raise UserError(
        f"data.root={root}: was generated with {theirs}; ask for that instead of {ours}, or name another data.root"
    )
