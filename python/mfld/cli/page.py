"""A report of a training as one web page: pictures inline, nothing from the network, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mfld import fitting, plots
from mfld.bias import BiasReport
from mfld.cli.report import certified
from mfld.experiments import Dataset
from mfld.experiments.recipe import Training
from mfld.files import replacing

_MOST_CLASSES = 20
_MOST_COLUMNS = 50
_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #15181c; --line: #444; --accent: #6cb8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
a { color: var(--accent); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0; list-style: none; }
figure { margin: 0; } img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border: 1px solid var(--line); text-align: right; }
th:first-child { min-width: 7rem; text-align: left; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.skip { position: absolute; left: -100rem; } .skip:focus { left: 1rem; }
"""


def write(path: Path, data: Dataset, training: Training, bias: BiasReport | None) -> None:
    """Write the page of a training: data, scores, loss, certificate, confusion or residuals, calibration, neurons."""
    trained, rows = training.trained, training.trained.test_rows
    targets, outputs = data.targets[rows], trained.outputs(data.inputs, rows)
    predicted = trained.predict(data.inputs[rows])
    losses = training.result.history["test_loss"]
    sections = {
        "Data": _data(data, len(rows)),
        "Scores": _scores(training),
        "Loss": _picture(
            lambda: plots.losses(training.result),
            f"Mean loss against the step; on held-out rows it goes from {losses[0]:.3g} to {losses[-1]:.3g}.",
        ),
    }
    if training.certificate is not None:
        sections["Certificate"] = _paragraph(certified(trained.provenance["certificate"]))
    if bias is not None:
        said = "What step size, number of neurons and seeds did to the loss on the held-out rows."
        sections["Bias report"] = f"{_paragraph(said)}<pre>{escape(str(bias))}</pre>"
    if trained.classes is None:
        error = float(np.sqrt(np.mean((targets - predicted) ** 2)))
        sections["Residuals"] = _picture(
            lambda: plots.residuals(targets, predicted),
            f"Errors of {len(rows)} held-out rows against their predictions; root mean square {error:.4g}.",
        )
    else:
        sections["Confusion"] = _confusion(targets, predicted, trained.classes)
        if trained.loss.has_probabilities:
            shares = fitting.probabilities(outputs.astype(np.float64), trained.loss).max(axis=1)
            right = predicted == targets
            sections["Calibration"] = _picture(
                lambda: plots.calibration(np.clip(shares, 0, 1), right),
                f"Share of predictions that are right against their probability: {right.mean():.0%} are right, "
                f"{shares.mean():.0%} is the mean probability.",
            )
    n_neurons = trained.particles.shape[-2]
    sections["Neurons"] = _picture(
        lambda: plots.neurons(trained),
        f"Weights of {n_neurons} neurons in the plane of their first two principal axes, coloured by their readout.",
    )
    chosen = {name: value for name, value in trained.hyperparameters.items() if value is not None}
    settings = _table(("setting", "value"), list(chosen.items()))
    sections["Every choice"] = f"<details><summary>{len(chosen)} settings</summary>{settings}</details>"
    with replacing(path) as file:
        file.write(_page(f"mfld train {data.name}", sections).encode())


def _page(title: str, sections: Mapping[str, str]) -> str:
    names = {name: name.lower().replace(" ", "-") for name in sections}
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for name, key in names.items())
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{sections[name]}</section>'
        for name, key in names.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the report</a><header><h1>{escape(title)}</h1>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main id="main">{body}</main></body></html>\n'
    )


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], label: str = "") -> str:
    top = "".join(f'<th scope="col">{escape(str(each))}</th>' for each in head)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>{"".join(f"<td>{escape(str(each))}</td>" for each in rest)}</tr>'
        for first, *rest in rows
    )
    # What scrolls must be reached by the keyboard.
    region = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label or head[0])}">'
    return f"{region}<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _picture(draw: Callable[[], Any], text: str) -> str:
    """A picture for light and for dark paper; its text stands under it and in place of it."""
    sources = {}
    for theme in ("light", "dark"):
        with plots.theme(theme):
            image = io.BytesIO()
            draw().savefig(image, format="png", dpi=110)
        sources[theme] = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{sources["dark"]}">'
        f'<img src="{sources["light"]}" alt="{escape(text)}"></picture><figcaption>{escape(text)}</figcaption></figure>'
    )


def _data(data: Dataset, n_held_out: int) -> str:
    n, d = data.inputs.shape
    kind = "a regression" if data.classes is None else f"{len(data.classes)} classes"
    said = f"{n} rows, {n_held_out} of them held out; {d} features; {kind}; the target is {data.encoding.target!r}."
    names = data.encoding.feature_names[:_MOST_COLUMNS]
    columns = [(name, *(f"{value:.4g}" for value in _summary(data.inputs[:, j]))) for j, name in enumerate(names)]
    shown = "" if d <= _MOST_COLUMNS else f", the first {_MOST_COLUMNS}"
    table = _table(("feature", "mean", "deviation", "least", "most"), columns, f"features{shown}")
    return f"{_paragraph(said)}<details><summary>Features{shown}</summary>{table}</details>"


def _summary(column: Any) -> tuple[float, float, float, float]:
    return float(column.mean()), float(column.std()), float(column.min()), float(column.max())


def _scores(training: Training) -> str:
    names = {"train": "training rows", "test": "held-out rows"}
    rows = [(names[part], f"{each.loss:.4f}", f"{each.score:.4f}") for part, each in training.scores.items()]
    return _table(("rows", "loss", training.scores["test"].measure), rows, "scores")


def _confusion(targets: Any, predicted: Any, classes: Any) -> str:
    shown = classes[:_MOST_CLASSES]
    counts = [(f"true {a}", *(int(np.sum((targets == a) & (predicted == b))) for b in shown)) for a in shown]
    said = f"Of {len(targets)} held-out rows {int(np.sum(targets == predicted))} are predicted as they are."
    if len(classes) > _MOST_CLASSES:
        said += f" The first {_MOST_CLASSES} of {len(classes)} classes:"
    return _paragraph(said) + _table(("", *(f"predicted {b}" for b in shown)), counts, "confusion matrix")
