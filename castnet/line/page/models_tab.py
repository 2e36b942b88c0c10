"""The tab that shows the models whose verdicts are on record."""

import pandas as pd
import sqlalchemy as sa
import streamlit as st

from castnet.line.page.card import show_card
from castnet.line.page.looks import clock, percent
from castnet.line.page.station import Station, telling_of_away
from castnet.line.record import models, verdicts
from castnet.line.today import Row, read_cards


@telling_of_away
def show_models(station: Station) -> None:
    """The whole tab."""
    st.title("Models")
    counted = sa.select(
        verdicts.c.model,
        sa.func.count().label("verdicts"),
        sa.func.count().filter(verdicts.c.verdict == "defective").label("rejected"),
        sa.func.count().filter(verdicts.c.verdict == "unsure").label("unsure"),
        sa.func.max(verdicts.c.time).label("last"),
    ).group_by(verdicts.c.model)
    with station.record() as connection:
        since = connection.execute(sa.select(models.c.model, models.c.since).order_by(models.c.since.desc())).all()
        cards = read_cards(connection)
        found = {row.model: row for row in connection.execute(counted)}
    if not since:
        st.info("No verdicts yet.")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "model": row.model[:8] + (", this page's" if row.model == station.inspector.digest else ""),
                "since": clock(row.since, "%Y-%m-%d %H:%M"),
                "last verdict": clock(found[row.model].last, "%Y-%m-%d %H:%M") if row.model in found else "–",
                "verdicts": f"{found[row.model].verdicts:,}" if row.model in found else "0",
                "rejected": _share(found.get(row.model), "rejected"),
                "unsure": _share(found.get(row.model), "unsure"),
            }
            for row in since
        ),
        hide_index=True,
        width="stretch",
    )
    st.caption("A model goes by the first digits of its file's SHA-256. Verdicts of a shadow count here too.")
    for row in since:
        with st.expander(f"Card of {row.model[:8]}", expanded=len(since) == 1 or row.model == station.inspector.digest):
            if row.model in cards:
                show_card(cards[row.model])
            else:
                st.caption("Its card cannot be read.")


def _share(row: Row | None, name: str) -> str:
    return percent(row._mapping[name] / row.verdicts) if row else "–"
