"""The results of `vgx eval` as tables; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("reconstruction", "latent")
Figure = dict[str, Any]  # mean, spread, values, better, features, meaning
# What the metrics of latents mean; those of images are explained by their parts.
LATENT = {
    "kl": "KL divergence of posterior and prior, in nats, summed over dimensions",
    "prior_gap": "lower bound of the KL divergence of the aggregate posterior and the prior, in "
    "nats; if it is large, the decoder was not trained on latents from the prior",
    "active_units": "number of dimensions in which the posterior's mean has a variance above 0.01",
    "marginal_kl": "distance of the aggregate posterior from the prior, dimension by dimension",
    "mmd": "distance of the aggregate posterior from the prior, by a kernel; 0 for the same",
    "codebook_usage": "share of the codes that these images use; of several levels the mean",
    "perplexity": "number of codes that would be as diverse if all were equally frequent",
    "disentanglement": "whether each dimension represents one factor; 0 to 1",
    "completeness": "whether each factor is represented by one dimension; 0 to 1",
    "mig": "how much more the best dimension knows of a factor than the second best; 0 to 1",
    "readout_r2": "how well a linear regression reads the quantities from the latents; 0 to 1",
    "readout_accuracy": "share of each class that a linear classifier reads from the latents",
}


def tables(results: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the tables of an evaluation: a title, a header and rows each."""
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    for kind in KINDS:
        if (part := results.get(kind)) is not None:
            title = f"{kind}: {part['pictures']:,} images, {part['split']}"
            tables.append((title, ("figure", "value"), _rows([part])))
    if samplers := results.get("generation"):
        first = samplers[0]
        real = f"{first['real']:,} of {first.get('real_of', first['real']):,}"
        against = f"against {real} real ones, {first['split']}"
        title = f"generation: {first['pictures']:,} images of each sampler {against}"
        header = ("figure", *(part["sampler"]["type"] for part in samplers))
        tables.append((title, header, _rows(samplers)))
    return tables


def meanings(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name of each figure of an evaluation with a line that explains it."""
    parts = [results[kind] for kind in KINDS if results[kind] is not None]
    figures = {
        k: v for part in (*results["generation"], *parts) for k, v in part["figures"].items()
    }
    return [(name, each["meaning"]) for name, each in figures.items() if each.get("meaning")]


def _rows(parts: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for name, first in parts[0]["figures"].items():
        cells = [value_and_spread(part["figures"][name]) for part in parts]
        rows.append((title_of(name, first), *cells))
    return rows


def title_of(name: str, figure: Figure) -> str:
    """Return the name of a figure, the features that it is in, and which direction is better."""
    features = f" [{figure['features']}]" if figure.get("features") else ""
    directions = {"higher": " (more is better)", "lower": " (less is better)", None: ""}
    return name + features + directions[figure.get("better")]


def spread_of(seeds: int) -> str:
    """Return what ± means in the tables of an evaluation with so many seeds."""
    text = "± is the standard error over images for reconstructions"
    return f"{text}, else the standard deviation over {seeds} seeds" if seeds > 1 else text


def value_and_spread(figure: Figure) -> str:
    """Return a mean with four significant digits and its spread."""
    text = f"{figure['mean']:.4g}"
    return f"{text} ± {figure['spread']:.2g}" if figure.get("spread") else text
