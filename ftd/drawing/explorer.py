"""A page to look up distances between many tasks; one file, which asks for no other."""

import json
from collections.abc import Collection
from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert

from ftd import store

_ROWS = 20_000  # of each measure and network: of more, each target's nearest
_SIDE = (7, 56)  # pixels of a cell, at least and at most
_LARGEST = 640  # pixels of the matrix, unless cells would be too small
_FIELDS = ["measure", "network", "source", "target", "rank", "mean", "std", "agreement"]
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Distances between tasks</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light; }}
body {{ font: 14px sans-serif; margin: 1.5em; color: #111; background: #fff; }}
main {{ overflow-x: auto; }}
.vega-bind-name {{ display: inline-block; min-width: 8em; }}
</style>
<script>{bundle}</script></head>
<body><h1>Distances between tasks</h1>
<p>{text}</p>
<main><div id="choices"></div><div id="matrix"></div></main>
<script>
vegaEmbed("#matrix", {chart}, {{renderer: "svg", actions: false, bind: "#choices"}});
</script>
</body></html>
"""
_TEXT = (
    "Rows are sources, columns are targets. Brighter is nearer. Point at a cell to read it; click "
    "it to sort the sources of its target, the nearest first, or choose the target above the "
    "matrix. A double click brings back the order of arrival."
)


def page(nearest: pd.DataFrame, out: Path, *, order: list[str], higher: Collection[str]) -> None:
    """Write the page: a matrix of means, for a measure and network of one's choice.

    Args:
        nearest: the columns ``measure``, ``network``, ``source``, ``target``, ``rank``, ``mean``,
            ``std`` and ``agreement`` of ``ftd.measures.ranking.nearest``.
        order: all tasks.
        higher: the measures whose larger number is the nearer source's.

    Raises:
        UserError: ``out`` cannot be written.
    """
    kept = max(1, _ROWS // len(order))
    text = _TEXT
    if kept < len(order) - 1:
        text += f" Of each target, the nearest {kept} sources are here."
    chart = _chart(nearest.loc[nearest["rank"] <= kept, _FIELDS], order, higher)
    plain = json.dumps(chart.to_dict(), separators=(",", ":"), ensure_ascii=False)
    version = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    bundle = vl_convert.javascript_bundle(vl_version=version)
    content = _PAGE.format(text=text, bundle=bundle, chart=plain.replace("</", "<\\/"))
    store.write_bytes(out, content.encode())


def _chart(rows: pd.DataFrame, order: list[str], higher: Collection[str]) -> alt.Chart:
    """The matrix and what it reacts to.

    Names stand once each, and rows have their places in these lists: most of a large page.
    """
    names = {"source": order, "target": order}
    names |= {key: list(dict.fromkeys(rows[key])) for key in ("measure", "network")}
    places = {key: {name: place for place, name in enumerate(all)} for key, all in names.items()}
    coded = rows.assign(**{f"{key}_at": rows[key].map(found) for key, found in places.items()})
    coded = coded.drop(columns=[*names])
    numbers = coded.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    choices = [
        alt.param(
            name=f"{key}_shown",
            value=names[key][0],
            bind=alt.binding_select(options=names[key], name=key),
        )
        for key in ("measure", "network")
    ]
    targets = alt.binding_select(
        options=[None, *order], labels=["none", *order], name="sort for target"
    )
    chosen = alt.selection_point(
        name="chosen", fields=["target"], bind=targets, on="click", clear="dblclick", toggle=False
    )
    parse = dict.fromkeys(coded, "number")
    side = min(max(_LARGEST / len(order), _SIDE[0]), _SIDE[1])
    chart = alt.Chart(
        alt.InlineData(values=numbers, format=alt.CsvDataFormat(type="csv", parse=parse)),
        name="matrix",
        title=alt.Title(text=alt.ExprRef("measure_shown + ', ' + network_shown")),
        width=alt.Step(side),
        height=alt.Step(side),
    )
    picked = "(chosen.target ? chosen.target[0] : null)"
    for key, found in names.items():
        chart = chart.transform_calculate(**{key: f"{json.dumps(found)}[datum.{key}_at]"})
    chart = (
        chart.transform_filter("datum.measure === measure_shown && datum.network === network_shown")
        .transform_calculate(
            number="format(datum.mean, '.4g') + ' ± ' + format(datum.std, '.2g')",
            first="format(datum.agreement, '.0%')",
            own=f"isValid({picked}) ? (datum.target === {picked} ? datum.rank : 0)"
            " : datum.source_at",
        )
        .transform_joinaggregate(place="max(own)", groupby=["source"])
    )
    return _encoded(chart, order, higher, chosen).add_params(*choices, chosen)


def _encoded(
    chart: alt.Chart, order: list[str], higher: Collection[str], chosen: alt.Parameter
) -> alt.Chart:
    by_place = alt.EncodingSortField(field="place", op="min", order="ascending")
    axis = {"labelOverlap": "greedy", "labelLimit": 160, "ticks": False, "domain": False}
    reverse = alt.ExprRef(f"indexof({json.dumps(sorted(higher))}, measure_shown) < 0")
    return (
        chart.mark_rect(stroke="black")
        .encode(
            x=alt.X("target:N", sort=order, title="target task", axis=alt.Axis(**axis)),
            y=alt.Y("source:N", sort=by_place, title="source task", axis=alt.Axis(**axis)),
            color=alt.Color(
                "mean:Q", title="mean", scale=alt.Scale(scheme="viridis", reverse=reverse)
            ),
            strokeWidth=alt.when(chosen, empty=False).then(alt.value(1)).otherwise(alt.value(0)),
            tooltip=[
                alt.Tooltip("source:N", title="source"),
                alt.Tooltip("target:N", title="target"),
                alt.Tooltip("number:N", title="mean ± standard deviation"),
                alt.Tooltip("rank:Q", title="rank"),
                alt.Tooltip("first:N", title="nearest in trials"),
            ],
        )
        .configure_view(fill="#cccccc", stroke=None)
    )
