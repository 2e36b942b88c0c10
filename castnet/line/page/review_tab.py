"""The tab on which people decide what the model was asked to decide."""

import html
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial

import pandas as pd
import streamlit as st

from castnet.errors import printable
from castnet.line.page.looks import COLOURS, clock, heatmap, percent, picture
from castnet.line.page.station import AwayError, Station, telling_of_away
from castnet.line.review import STRATA, Stratum, count_strata, decide, estimate, next_to_review, undo
from castnet.line.today import Row, hours_of

DAYS = 7
KEYS = {"good": "G", "defective": "D", "skip": "S", "undo": "U"}
GLANCE = 0.4  # seconds; who presses a key sooner after a casting was drawn has not looked at it
# A key that is held repeats itself, and would decide on castings that nobody has seen. So would one that is pressed
# twice, where a slow browser has drawn the next casting by the time that it gets to the second press.
ONE_PRESS = f"""
<script>
  window.onePress ??= addEventListener("keydown", event => {{
    if (!{list(KEYS.values())}.includes(event.key.toUpperCase())) return;
    const isSoon = event.timeStamp - (window.lastPress ?? -Infinity) < {1000 * GLANCE};
    if (event.repeat || isSoon) event.stopImmediatePropagation();
    else window.lastPress = event.timeStamp;
  }}, true) ?? true;
</script>
"""


@telling_of_away
def show_review(station: Station) -> None:
    """The whole tab."""
    st.title("Review")
    st.html(ONE_PRESS, unsafe_allow_javascript=True)
    st.session_state.setdefault("decided", {})  # the stratum by the number of the verdict, the last one last
    st.session_state.setdefault("skipped", [])
    today = date.today()
    days = st.date_input("Days", (today - timedelta(DAYS - 1), today), max_value="today", width=260)
    if not isinstance(days, tuple) or len(days) != 2:
        st.info("Choose the first day and the last one.")
        return
    edges = hours_of(days[0], (days[1] - days[0]).days + 1)
    since, until = float(edges[0]), float(edges[-1])
    with station.record() as connection:
        strata = count_strata(connection, since, until)
        order = list(STRATA)
        # A click on what is chosen already would leave nothing chosen.
        chosen = st.session_state.get("stratum") or st.session_state.get("stratum shown", order[0])
        # Unsure and rejected ones come first, and who has seen all of one kind goes on to the next.
        for name in dict.fromkeys([chosen, *order]):
            row = next_to_review(connection, name, since, until, st.session_state["skipped"])
            if row:
                chosen = name
                break
    st.session_state["stratum"] = st.session_state["stratum shown"] = chosen
    st.segmented_control(
        "Which",
        order,
        key="stratum",
        format_func=lambda name: f"{name.capitalize()}: {strata[name].verdicts - strata[name].decided:,} left",
        label_visibility="collapsed",
    )
    if row:
        show_casting(station, row, chosen)
    else:
        st.info(
            "Nothing left to decide whose image is on record. --keep all keeps the passed castings' images too, and "
            "only they can tell what escapes."
        )
        show_buttons(station, "", chosen)
    show_estimates(strata)


def show_casting(station: Station, row: Row, stratum: str) -> None:
    facts = f"{clock(row.time, '%Y-%m-%d %H:%M:%S')} · P(defect) {row.p_defect:.4f} · "
    facts += printable(row.name) or row.image[:8]
    st.markdown(
        f'<div class="quiet">{html.escape(facts)}</div><div class="judged" data-testid="judged" data-id="{row.id}" '
        f'style="color: {COLOURS[row.verdict]}">{row.verdict.capitalize()}'
        f"{f': {html.escape(row.reason)}' if row.reason else ''}</div>",
        unsafe_allow_html=True,
    )
    buttons = st.container()
    if row.model == station.inspector.digest:
        evidence = heatmap(station.inspector, station.inspector.digest, row.image, row.content)
    else:
        evidence = f"Judged by another model ({row.model[:8]}), so that there is no heat map."
    seen = (picture(row.content), "the casting"), (evidence, "heat map of the evidence for a defect")
    for place, (drawn, alt) in zip(st.columns(2), seen, strict=True):
        if isinstance(drawn, bytes):
            place.image(drawn, width="stretch", alt=alt)
        else:
            place.caption(drawn)
    with buttons:  # once there is something to decide by
        show_buttons(station, row.id, stratum)


@contextmanager
def saying_what_stands() -> Iterator[None]:
    """Where the record does not take something, people are told: the tab itself may still be able to read."""
    try:
        yield
    except AwayError:
        st.toast("The record did not take that, and it does not stand. Do it again.")


def show_buttons(station: Station, number: str, stratum: str) -> None:
    """Good, defective, skip and undo, each with a key, for the verdict of this number alone, or for none ("")."""
    decided: dict[str, str] = st.session_state["decided"]
    if st.session_state.get("shown", ("", 0.0))[0] != number:
        st.session_state["shown"] = number, time.monotonic()

    # While the page is drawn anew, a key can press the button that was there before, too, and Streamlit does what that
    # one was to do. So each looks whether it is still the one that counts.
    def is_seen() -> bool:
        shown, since = st.session_state["shown"]
        return shown == number and time.monotonic() - since > GLANCE

    def put(is_defect: bool) -> None:
        if not is_seen():
            return
        with saying_what_stands():
            with station.record() as connection:
                is_mine = decide(connection, number, stratum, is_defect)
            if is_mine:
                decided[number] = stratum
            elif number not in decided:  # a second press may overtake the first one
                st.toast("Somebody else has decided on that one.")

    def skip() -> None:
        if is_seen():
            st.session_state["skipped"].append(number)

    def take_back(verdict_id: str) -> None:
        if verdict_id != next(reversed(decided), ""):
            return
        with saying_what_stands():
            with station.record() as connection:
                undo(connection, verdict_id)
            # Only what the record has taken back may leave the list, or the next undo would be of another one.
            st.session_state["stratum"] = decided.pop(verdict_id, stratum)

    word = {"passed": ("confirm", "overrule"), "rejected": ("overrule", "confirm"), "unsure": ("", "")}[stratum]
    good, defective = (
        f"{label}, {said}" if said else label for label, said in zip(("Good", "Defective"), word, strict=True)
    )
    last = next(reversed(decided), "")
    on_click: dict[str, Callable[[], None]] = {
        "good": partial(put, False),
        "defective": partial(put, True),
        "skip": skip,
        "undo": partial(take_back, last),
    }
    with st.container(horizontal=True):
        for name, label in (("good", good), ("defective", defective), ("skip", "Skip"), ("undo", "Undo")):
            of = last if name == "undo" else number
            st.button(label, key=f"{name} {of}", shortcut=KEYS[name], on_click=on_click[name], disabled=not of)


def show_estimates(strata: dict[str, Stratum]) -> None:
    """What the decisions say of all castings of these days."""
    st.subheader("What they say of all castings of these days")
    escapes, overkill = estimate(strata)
    looked = all(stratum.reviewed or not stratum.verdicts for stratum in strata.values())
    missing = "none that it is a share of was found yet" if looked else "decide on some of each verdict"
    left, right = st.columns(2)
    for place, word, found in ((left, "escape rate", escapes), (right, "overkill rate", overkill)):
        place.metric(word, percent(found.rate, 2))
        ends = f"between {percent(found.low, 2)} and {percent(found.high, 2)} (95 %)"
        place.caption(ends if found.rate is not None else f"{ends}: {missing}")
    wait = sum(stratum.decided - stratum.reviewed for stratum in strata.values())
    if wait:
        st.info(
            f"Decisions that do not count yet: {wait:,}. Castings came since that have their places among them; go on "
            "deciding, and they will."
        )
    table = pd.DataFrame(
        {
            "verdict": name,
            "castings": f"{stratum.verdicts:,}",
            "decided": f"{stratum.decided:,}",
            **({"of them counted": f"{stratum.reviewed:,}"} if wait else {}),
            "defective": f"{stratum.defective:,}",
        }
        for name, stratum in strata.items()
    )
    st.dataframe(table, hide_index=True, width="stretch")
    st.caption(
        "Escape rate: of the defective castings, the share that passed. Overkill rate: of the good ones, the share "
        "that was rejected. Unsure ones are neither, but count among the defective or the good. Castings are shown in "
        "random order within each verdict, and each verdict's share is weighted by all its castings (stratified "
        "estimate: Cochran, Sampling Techniques, 1977, ch. 5); the intervals join exact ones of each verdict and are "
        "never too narrow. Skipped castings count as if they were like the others. Castings whose image is not on "
        "record are not shown; the estimate takes them to be like those that are."
    )
