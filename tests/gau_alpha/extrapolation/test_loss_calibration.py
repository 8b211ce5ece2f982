"""Temperatures fitted to the loss: against a grid of plain loops, and what is left out of the evaluation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation.calibration import Calibration, base_of, calibration_path, is_calibrated, objective_of
from gau_alpha.extrapolation.calibration_solver import masked
from gau_alpha.extrapolation.loss_calibration import FARTHEST, calibrate_loss, minimize
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.scaling import CalibratedScale, InfoScale
from gau_alpha.visibility import Window
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(40, 1, 0)
RATIOS = [1, 2, 8]


@pytest.fixture(scope="module")
def model():
    """Trained for some steps, so that a temperature matters."""
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 2, initializer_range=0.5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rows = torch.from_numpy(np.stack([one[:8] for one in documents(*[70] * 256)]))
    for _ in range(150):
        hidden = torch.rand(rows.shape) < 0.3
        loss = F.cross_entropy(model(rows.masked_fill(hidden, 1))[hidden], rows[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def documents(*num_tokens):
    """Tokens that stand again four places on, but for some: it matters where attention goes."""
    made = []
    for seed, count in enumerate(num_tokens):
        generator = np.random.default_rng(seed)
        text = generator.integers(2, 40, size=count)
        for place in range(4, count):
            if generator.random() < 0.8:
                text[place] = text[place - 4]
        made.append(text)
    return made


def fitted(model, docs, **kwargs):
    options = {"method": "trained", "length_ratios": RATIOS, "num_documents": 6, **kwargs}
    return calibrate_loss(model, docs, VOCABULARY, 8, **options)


def loss_by_hand(model, docs, length, tau):
    """Mean over all targets of the last six documents, row by row, in float64."""
    total, count = 0.0, 0
    with torch.no_grad(), model.using(model.method.replace(scaling=CalibratedScale([8], [[tau]]))):
        for index in range(len(docs) - 6, len(docs)):
            hidden = masked(docs[index][:64], index, VOCABULARY, 0)
            for start in range(0, 64, length):
                row, truth = hidden[start : start + length], torch.from_numpy(docs[index][start : start + length])
                logits = model(row[None])[0].double()
                targets = row == VOCABULARY.mask_id
                total += float(F.cross_entropy(logits[targets], truth[targets], reduction="sum"))
                count += int(targets.sum())
    assert count == 6 * round(0.15 * 64)
    return total / count


@pytest.mark.slow
def test_the_temperature_of_each_length_is_that_of_the_least_loss(model):
    docs = documents(*[70] * 9)
    found = fitted(model, docs)
    (temperatures,) = found.scale.temperatures
    assert (found.scale.lengths, temperatures[0], found.objective) == ([8, 16, 64], 1.0, "loss")
    grid = np.exp(np.linspace(-math.log(FARTHEST), math.log(FARTHEST), 60))
    for place, length in ((1, 16), (2, 64)):
        losses = [loss_by_hand(model, docs, length, tau) for tau in grid]
        assert found.provenance["loss_after"][place] == pytest.approx(
            loss_by_hand(model, docs, length, temperatures[place]), abs=1e-5
        )
        assert found.provenance["loss_before"][place] == pytest.approx(loss_by_hand(model, docs, length, 1.0), abs=1e-5)
        assert found.provenance["loss_after"][place] <= min(losses) + 1e-4
        assert 0.03 < abs(math.log(temperatures[place])) < math.log(FARTHEST), "the case is one: there is a least loss"
    assert found.provenance["documents"] == [document_fingerprint(one) for one in docs[-6:]]
    assert fitted(model, docs).scale.temperatures == found.scale.temperatures


@pytest.mark.parametrize("least", [0.3, 0.97, 1.0, 1.6, 5.0])
def test_the_least_of_a_known_function_is_found(least):
    asked = []

    def loss(tau):
        asked.append(tau)
        return math.log(tau / least) ** 2

    assert minimize(loss, 1.0, 1.0) == pytest.approx(least, rel=0.01)
    assert len(asked) <= 25


@pytest.mark.parametrize(("falls", "end"), [(1, FARTHEST), (-1, 1 / FARTHEST)])
def test_a_loss_without_a_least_ends_at_the_farthest(falls, end):
    assert minimize(lambda tau: -falls * math.log(tau), 1.0, 1.0) == pytest.approx(end, rel=0.02)


def test_the_temperature_of_training_is_that_of_the_method(model):
    with model.using(model.method.replace(scaling=InfoScale(4))):
        found = fitted(model, documents(*[70] * 6))
        at_training = float(InfoScale(4).temperature(torch.tensor([8]), 8))
    assert found.scale.temperatures[0][0] == pytest.approx(at_training, rel=1e-5)
    assert model.method.scaling.temperature(torch.tensor([64]), 8) == 1, "the model is as before"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length_ratios": [1]}, "must hold whole numbers above 1"),
        ({"num_documents": 0}, "num_documents must be at least 1"),
        ({"length_ratios": [1, 16]}, "No document has the 128 tokens"),
    ],
)
def test_wrong_arguments_are_named(model, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(model, documents(70, 70), **options)


def test_windows_leave_nothing_to_fit(model):
    with model.using(model.method.replace(visibility=Window(4))), pytest.raises(ValueError, match="at most 9 of 64"):
        fitted(model, documents(70, 70))


def test_a_file_says_what_it_was_fitted_for(model, tmp_path):
    found = fitted(model, documents(*[70] * 6))
    again = Calibration.read(found.write(tmp_path / "x.json"))
    assert (again.objective, again.scale.describe()) == ("loss", found.scale.describe())
    content = json.loads((tmp_path / "x.json").read_text())
    del content["provenance"]["objective"]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert Calibration.read(tmp_path / "x.json").objective == "entropy", "as files were before there was a choice"


@pytest.mark.parametrize(
    ("name", "base", "objective", "file"),
    [
        ("calibrated", "trained", "entropy", "last.calibrated.json"),
        ("fitted", "trained", "loss", "last.fitted.json"),
        ("yarn_calibrated", "yarn", "entropy", "last.yarn_calibrated.json"),
        ("yarn_fitted", "yarn", "loss", "last.yarn_fitted.json"),
    ],
)
def test_names_of_methods_with_tables(name, base, objective, file):
    assert is_calibrated(name)
    assert (base_of(name), objective_of(name)) == (base, objective)
    assert calibration_path(Path("a/last.ckpt"), base, objective) == Path("a") / file
