"""The page that `castnet app` starts: castings inspected, and what a record says of those that were."""

import atexit
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from castnet.errors import UserError
from castnet.line.inspector import Inspector
from castnet.line.launch import LOGIN_ASKED, RECORD, has_login
from castnet.line.page.card import show_card
from castnet.line.page.inspect_tab import show_inspect
from castnet.line.page.looks import STYLE, plain
from castnet.line.page.station import Station

NO_RECORD = """
Nothing is recorded, so there is nothing to show here. A page that is started with a record has more to say:

    castnet app MODEL --record sqlite:///line.db --keep rejected

The same URL given to `castnet predict --watch` or `castnet serve` puts the line's own verdicts there.
"""


@st.cache_resource(max_entries=1)
def open_station(model: str, modified: int, url: str | None, keep: str, keep_bytes: int) -> Station:
    """Model and record, opened once for all visitors and again when the model's file changes."""
    inspector = Inspector(model)
    if url is None:
        return Station(inspector, None, None)
    from castnet.line.record import engine_for
    from castnet.line.recorder import Recorder

    recorder = Recorder(url, "page", inspector, keep=keep, keep_bytes=keep_bytes)
    # And not when the model changes: somebody's photographs may be under way through it.
    atexit.register(recorder.close)
    return Station(inspector, engine_for(url), recorder)


def show_no_record(station: Station) -> None:
    st.info(NO_RECORD)


def show_own_card(station: Station) -> None:
    st.title("The model")
    show_card(station.inspector.card)


def main(model: Path, keep: str, keep_bytes: int, login: bool, url: str | None) -> None:
    st.set_page_config("castnet", page_icon="🔩", layout="wide")
    st.markdown(STYLE, unsafe_allow_html=True)
    if (login or has_login()) and not st.user.get("is_logged_in"):
        st.button("Log in", on_click=st.login)
        st.stop()
    try:
        station = open_station(str(model), model.stat().st_mtime_ns, url, keep, keep_bytes)
    except (OSError, UserError) as error:  # such as while another model is copied there
        reason = f"{model}: {error.strerror}" if isinstance(error, OSError) else str(error)
        st.error(f"{plain(reason)}. Reload this page when the model is there again.")
        st.stop()
    show_today: Callable[[Station], None]
    show_review: Callable[[Station], None]
    show_models: Callable[[Station], None]
    if station.engine is None:
        show_today, show_review = show_no_record, show_no_record
        show_models = show_own_card
    else:
        from castnet.line.page.models_tab import show_models
        from castnet.line.page.review_tab import show_review
        from castnet.line.page.today_tab import show_today
    tabs = {"Inspect": show_inspect, "Today": show_today, "Review": show_review, "Models": show_models}
    pages = [
        st.Page(partial(show, station), title=title, url_path=title.lower(), default=show is show_inspect)
        for title, show in tabs.items()
    ]
    page = st.navigation(pages, position="hidden")
    with st.container(horizontal=True, key="tabs"):
        for other in pages:
            st.page_link(other)
    page.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == LOGIN_ASKED, os.environ.get(RECORD))
