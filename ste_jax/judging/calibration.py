"""Calibration of a judge on labelled pairs: a temperature for its log-odds and an abstention threshold.

The temperature makes `confidence` an estimate of the share of correct decisions; the threshold is the
smallest confidence above which the decisions agree with the labels as often as requested. Both are fitted on
all pairs; every reported number comes from pairs that the fit did not see (two halves of the prompts, each
measured with the values of the other).
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from etils import epath
from scipy import optimize, special

from ste_jax.errors import SteError
from ste_jax.metrics.stats import bootstrap_interval
from ste_jax.randomness import generator
from ste_jax.storage.files import read_json, write_atomically

SCHEMA_VERSION = 1
MIN_PAIRS = 50
MIN_PROMPTS = 20
BINS = 10
# Fewest kept pairs from which an agreement is read off.
_MIN_KEPT = 20
_TEMPERATURES = 0.01, 1000.0
_COVERAGES = tuple(k / 10 for k in range(1, 11))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperature and threshold of a judge, and how well they hold on pairs that the fit did not see.

    Attributes:
      temperature: T in probability_a = sigmoid(log_odds / T).
      threshold: the judge abstains below this confidence; 0 keeps every decision.
      agreement: wanted agreement that the threshold was chosen for, or None.
      settings: settings of the judge that the calibration belongs to.
      pairs: number of pairs in the fit.
      prompts: number of different prompts among them.
      without_numbers: number of labelled pairs that the judge gave no log-odds for.
      held_out: see `held_out_report`.
    """

    temperature: float
    threshold: float = 0.0
    agreement: float | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    pairs: int = 0
    prompts: int = 0
    without_numbers: int = 0
    held_out: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Builds the calibration of a dict that `to_dict` made.

        Raises:
          SteError: if the dict is of a newer version, or a field is missing or ill-formed.
        """
        version = value.get("schema_version", 1)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise SteError(
                "schema_newer",
                f"calibration: version {version} is newer than {SCHEMA_VERSION}; update ste_jax",
            )
        names = {field.name for field in dataclasses.fields(cls)}
        numbers = [value.get("temperature"), value.get("threshold", 0.0)]
        # Compared, not np.isfinite: that refuses integers of more than 64 bits.
        valid = all(isinstance(n, int | float) and -math.inf < n < math.inf for n in numbers)
        if not valid or value.keys() - names:
            raise SteError(
                "data_invalid", f"calibration: fields {sorted(value)} are not those of a calibration"
            )
        if not (numbers[0] > 0 and 0 <= numbers[1] <= 1):
            raise SteError(
                "data_invalid",
                f"calibration: temperature {numbers[0]} or threshold {numbers[1]} is out of range",
            )
        return cls(**value)


def fit_calibration(
    log_odds: Sequence[float | None],
    a_is_better: Sequence[bool],
    prompts: Sequence[str],
    *,
    agreement: float | None = None,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
) -> Calibration:
    """Fits the temperature by maximum likelihood and the threshold for a required agreement.

    Args:
      log_odds: uncalibrated log-odds that response A is better, None where the judge abstained.
      a_is_better: True where the label of the pair is A, False for B; ties have to be left out.
      prompts: prompt of each pair. Pairs of one prompt stay in one half of the split.
      agreement: required share of decisions that agree with the labels, or None for no threshold.
      settings: settings of the judge, stored with the calibration.
      seed: seed of the split and the bootstrap.

    Raises:
      SteError: if there are fewer than `MIN_PAIRS` pairs with log-odds or `MIN_PROMPTS` prompts, or no
        threshold reaches the required agreement.
    """
    check_agreement(agreement)
    given = [x is not None for x in log_odds]
    margins = np.array([x if a else -x for x, a in zip(log_odds, a_is_better, strict=True) if x is not None])
    clusters = [prompt for prompt, keep in zip(prompts, given, strict=True) if keep]
    check_size(len(margins), len(set(clusters)))
    if not np.isfinite(margins).all():
        raise ValueError("calibrate: log-odds must be finite")
    temperature = fit_temperature(margins)
    threshold = 0.0
    if agreement is not None:
        found = fit_threshold(margins, temperature, agreement)
        if found is None:
            best = max(row["agreement"] for row in risk_coverage(np.abs(margins), margins > 0))
            raise SteError(
                "agreement_unreachable",
                f"calibrate: no threshold reaches agreement={agreement}; the most confident decisions reach "
                f"{best:.3f}",
            )
        threshold = found
    missing = len(given) - len(margins)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        agreement=agreement,
        settings=settings or {},
        pairs=len(margins),
        prompts=len(set(clusters)),
        without_numbers=missing,
        held_out=held_out_report(margins, clusters, missing, agreement, seed),
    )


def check_agreement(agreement: float | None) -> None:
    """Raises SteError "argument_invalid" unless a required agreement is within 0.5 and 1, or None."""
    if agreement is not None and not 0.5 < agreement < 1.0:
        raise SteError("argument_invalid", f"calibrate: agreement={agreement} must be within 0.5 and 1")


def check_size(pairs: int, prompts: int) -> None:
    """Raises SteError "data_invalid" for fewer than `MIN_PAIRS` pairs or `MIN_PROMPTS` prompts."""
    if pairs < MIN_PAIRS or prompts < MIN_PROMPTS:
        raise SteError(
            "data_invalid",
            f"calibrate: {pairs} labelled pairs with log-odds from {prompts} prompts; at least {MIN_PAIRS} "
            f"pairs from {MIN_PROMPTS} prompts are needed",
        )


def fit_temperature(margins: np.ndarray) -> float:
    """Returns the temperature of maximum likelihood.

    The targets are smoothed as in Platt scaling, (n + 1) / (n + 2) instead of 1, so that the temperature of
    a judge that is always right stays positive. It is bounded above for a judge no better than chance.

    Args:
      margins: log-odds of the better response [pairs].
    """
    target = (len(margins) + 1) / (len(margins) + 2)

    def loss(log_temperature: float) -> float:
        scaled = margins / np.exp(log_temperature)
        return float(-np.mean(special.log_expit(scaled) - (1 - target) * scaled))

    low, high = np.log(_TEMPERATURES)
    result = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def fit_threshold(margins: np.ndarray, temperature: float, agreement: float) -> float | None:
    """Returns the smallest confidence at and above which decisions reach `agreement`, if there is one."""
    confidence = confidences(margins, temperature)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, correct = confidence[order], margins[order] > 0
    kept = np.arange(1, len(order) + 1)
    # A threshold keeps all pairs of equal confidence.
    last = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    reached = last & (kept >= _MIN_KEPT) & (np.cumsum(correct) / kept >= agreement)
    return float(sorted_confidence[reached][-1]) if reached.any() else None


def confidences(log_odds: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Returns max(p, 1 - p) of p = sigmoid(log_odds / temperature)."""
    return special.expit(np.abs(log_odds) / temperature)


def held_out_report(
    margins: np.ndarray, clusters: Sequence[str], missing: int, agreement: float | None, seed: int
) -> dict[str, Any]:
    """Returns how a fit on one half of the prompts holds on the other half, over both halves.

    The dict has the agreement of all decisions with its 95% interval (bootstrap over prompts), the expected
    calibration error and the mean negative log-likelihood at temperature 1 (`_before`) and calibrated
    (`_after`), the bins of the latter, the risk-coverage curve, and with a wanted agreement the share of
    pairs kept (pairs without log-odds are not) and the agreement of the kept ones.
    """
    halves = _halves(clusters, seed)
    temperature, threshold = np.ones(len(margins)), np.zeros(len(margins))
    for half in (0, 1):
        fit, rest = margins[halves != half], halves == half
        temperature[rest] = fit_temperature(fit)
        if agreement is not None:
            found = fit_threshold(fit, float(temperature[rest][0]), agreement)
            threshold[rest] = np.inf if found is None else found
    correct, confidence = margins > 0, confidences(margins, temperature)
    report = {
        "agreement": float(correct.mean()),
        "agreement_interval95": _interval(correct, clusters, seed),
        "ece_before": calibration_error(confidences(margins, 1.0), correct),
        "ece_after": calibration_error(confidence, correct),
        "nll_before": float(-special.log_expit(margins).mean()),
        "nll_after": float(-special.log_expit(margins / temperature).mean()),
        "bins": calibration_bins(confidence, correct),
        "risk_coverage": risk_coverage(confidence, correct),
    }
    if agreement is not None:
        kept = confidence >= threshold
        some = bool(kept.any())
        kept_clusters = [cluster for cluster, keep in zip(clusters, kept, strict=True) if keep]
        report |= {
            "kept": float(kept.sum() / (len(margins) + missing)),
            "kept_agreement": float(correct[kept].mean()) if some else None,
            "kept_agreement_interval95": _interval(correct[kept], kept_clusters, seed) if some else None,
        }
    return report


def _halves(clusters: Sequence[str], seed: int) -> np.ndarray:
    """Returns 0 or 1 for each pair, the same for all pairs of a prompt; the halves differ by one prompt."""
    names = sorted(set(clusters))
    generator(seed, "calibration").shuffle(names)
    half = {name: number % 2 for number, name in enumerate(names)}
    return np.array([half[cluster] for cluster in clusters])


def _interval(correct: np.ndarray, clusters: Sequence[str], seed: int) -> list[float] | None:
    interval = bootstrap_interval(correct.astype(float), clusters, seed=seed)
    return None if interval is None else list(interval)


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """Returns the count, mean confidence and agreement in `BINS` bins of equal width from 0.5 to 1."""
    edges = np.linspace(0.5, 1.0, BINS + 1)
    index = np.clip(np.digitize(confidence, edges) - 1, 0, BINS - 1)
    rows = []
    for number in range(BINS):
        here = index == number
        rows.append(
            {
                "low": round(float(edges[number]), 4),
                "high": round(float(edges[number + 1]), 4),
                "pairs": int(here.sum()),
                "confidence": float(confidence[here].mean()) if here.any() else None,
                "agreement": float(correct[here].mean()) if here.any() else None,
            }
        )
    return rows


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Returns the expected calibration error over the bins of `calibration_bins`."""
    rows = [row for row in calibration_bins(confidence, correct) if row["pairs"]]
    gaps = [row["pairs"] * abs(row["confidence"] - row["agreement"]) for row in rows]
    return float(sum(gaps) / len(confidence))


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Returns the agreement of the most confident 10%, 20%, ... 100% of the decisions."""
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for coverage in _COVERAGES:
        kept = order[: max(1, round(coverage * len(order)))]
        rows.append(
            {
                "coverage": coverage,
                "agreement": float(correct[kept].mean()),
                "confidence": float(confidence[kept[-1]]),
            }
        )
    return rows


def calibration_path(fingerprint: str) -> Path:
    """Returns the file that keeps the calibration of a model that is not a model folder of ste_jax.

    It is in $STE_DATA_HOME/calibration, by default in ste_jax/calibration under $XDG_DATA_HOME or
    ~/.local/share.
    """
    if not re.fullmatch(r"[\w.-]+", fingerprint) or fingerprint.startswith("."):
        raise ValueError(f"fingerprint {fingerprint!r} cannot be a file name")
    base = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    home = os.environ.get("STE_DATA_HOME") or Path(base) / "ste_jax"
    return Path(home) / "calibration" / f"{fingerprint}.json"


def write_calibration(fingerprint: str, calibration: Calibration) -> Path:
    """Writes the calibration of a model by its fingerprint and returns the file."""
    path = calibration_path(fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(epath.Path(path), json.dumps(calibration.to_dict(), indent=1))
    return path


def read_calibration(fingerprint: str) -> Calibration | None:
    """Returns the calibration that `write_calibration` wrote, or None.

    Raises:
      SteError: if the file is broken or of a newer version.
    """
    path = calibration_path(fingerprint)
    if not path.exists():
        return None
    return calibration_of(read_json(path, "delete it and run `ste calibrate` again"), path)


def calibration_of(value: dict[str, Any], path: Path) -> Calibration:
    """Returns the calibration that a file holds.

    Raises:
      SteError: it is broken or of a newer version; the message names the file.
    """
    try:
        return Calibration.from_dict(value)
    except SteError as error:
        raise SteError(error.code, f"{path}: {error}") from error
