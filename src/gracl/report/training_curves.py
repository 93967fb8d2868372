"""A run's log as charts: by the number of epochs that the model had been trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gracl.logbook import curves_of
from gracl.report.figures import Chart, Series, line_chart, number, percent, whole_percent
from gracl.runs import Run

BY = "epochs trained"


def training_charts(run: Run) -> list[Chart]:
    """Losses, clusters, outliers, stability and, where the truth is known, ARI and mAP.

    An epoch's clusters are made by the model that enters it, so its first are those before training.
    Without an epoch there is no chart.
    """
    epochs = run.epochs
    if not epochs:
        return []
    states = [(line["epoch"] - 1, line) for line in epochs]
    states.append((epochs[-1]["epoch"], run.after["clusters"]))
    curves = {name: points for name, points in curves_of(run.log).items() if len(points) > 1}
    charts = [line_chart("Losses", _losses(epochs), x_label=BY)]
    charts.append(
        line_chart("Clusters", [_of_states("clusters", "n_clusters", states)], x_label=BY, words=number)
    )
    shares = [
        _of_states("outliers, of all images", "outlier_share", states),
        _of_states("largest cluster, of clustered images", "largest_share", states),
    ]
    charts.append(
        line_chart(
            "Outliers and largest cluster",
            shares,
            x_label=BY,
            words=percent,
            ticks=whole_percent,
            ceiling=1,
        )
    )
    stable = _of_states("AMI with the clusters an epoch before", "stability", states)
    if stable.points:
        charts.append(
            line_chart("Stability", [stable], x_label=BY, words=percent, ticks=whole_percent, ceiling=1)
        )
    titles = {"ARI": "Agreement with the truth", "mAP": "Retrieval"}
    for name, title in titles.items():
        if name in curves:
            points = tuple((float(epoch), value) for epoch, value in curves[name])
            charts.append(
                line_chart(
                    title,
                    [Series(name, points)],
                    x_label=BY,
                    words=percent,
                    ticks=whole_percent,
                    ceiling=1,
                )
            )
    return charts


def _losses(epochs: Iterable[dict[str, Any]]) -> list[Series]:
    names = dict.fromkeys(name for line in epochs for name in line["losses"])
    return [
        Series(
            name,
            tuple(
                (float(line["epoch"]), line["losses"][name])
                for line in epochs
                if name in line["losses"]
            ),
        )
        for name in names
    ]


def _of_states(name: str, key: str, states: Iterable[tuple[int, dict[str, Any]]]) -> Series:
    known = ((epoch, state.get(key)) for epoch, state in states)
    return Series(name, tuple((float(epoch), value) for epoch, value in known if value is not None))
