"""What a person sees of results, states, clouds and objectives: one to three lines."""

import sys

import numpy as np
import pytest

import mfld
from mfld.data import Rows

INPUTS = np.linspace(-1, 1, 12)[:, np.newaxis]
RISK = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), INPUTS, INPUTS[:, 0], loss="squared", l2=0.01)
SOLVER = mfld.MFLD(40, step_size=0.1, temperature=1e-3, gradient=mfld.SVRG(4))


def test_a_result_in_three_lines():
    result = SOLVER.run(RISK, 50, seed=3)
    first, second, third = repr(result).splitlines()
    assert first == f"Result of MFLD on {RISK!r}:"
    assert second == (
        "  State(step 50, seed 3; mu: 40 particles of 3 coordinates; "
        "buffers anchor, anchor_gradient, anchor_predictions)"
    )
    assert third == f"  loss {result.info.loss:.4g}, gradient_norm {result.info.gradient_norm:.4g}, 50 records"
    assert max(map(len, (first, second, third))) < 250


def test_states_clouds_and_objectives():
    assert repr(RISK).endswith(", 12 samples, loss=Loss('squared'), l2=0.01)")
    assert repr(RISK).startswith("EmpiricalRisk(TwoLayerNetwork(n_features=1")
    assert repr(mfld.Cloud(np.zeros((5, 1)))) == "Cloud(5 particles of 1 coordinate, float64)"
    weighted = mfld.Cloud(np.zeros((2, 5, 3), np.float32), np.ones((2, 5)))
    assert repr(weighted) == "Cloud(2 x 5 particles of 3 coordinates, float32, weighted)"
    assert repr(mfld.State({"mu": weighted}, 0, 7)) == "State(step 0, seed 7; mu: 2 x 5 particles of 3 coordinates)"
    assert repr(mfld.Potential(abs, n_coordinates=2, l2=0.5)) == "Potential(2 coordinates, Gaussian(l2=0.5))"


def test_one_is_no_plural():
    assert repr(mfld.Potential(abs, n_coordinates=1)) == "Potential(1 coordinate, Free())"
    assert repr(mfld.Cloud(np.zeros((1, 1)))) == "Cloud(1 particle of 1 coordinate, float64)"
    assert repr(mfld.Functional(abs, n_coordinates=3, l2=0.5)) == "Functional(3 coordinates, Gaussian(l2=0.5))"


def test_what_is_made_of_functions_shows_their_names_and_no_address():
    def wave(theta, z):
        return np.cos(z @ theta.T)

    def cubic(predictions, targets):
        return abs(predictions - targets) ** 3, 3 * abs(predictions - targets) * (predictions - targets)

    model = mfld.NeuronModel(wave, wave, n_features=1, n_coordinates=2)
    shown = "NeuronModel(wave, n_features=1, n_coordinates=2, n_outputs=1)"
    assert repr(model) == shown
    risk = mfld.EmpiricalRisk(model, INPUTS, INPUTS[:, 0], loss=cubic)
    assert repr(risk) == f"EmpiricalRisk({shown}, 12 samples, loss=cubic, l2=0)"
    stream = mfld.StreamRisk(model, wave, loss=cubic, l2=0.5, capacity=7)
    assert repr(stream) == f"StreamRisk({shown}, loss=cubic, l2=0.5)"
    assert repr(stream.data) == "Stream(wave, capacity=7)"


def test_losses_and_references_of_the_user_show_no_address():
    class Cauchy(mfld.LossFunction):
        def value_and_derivative(self, predictions, targets):
            return predictions, targets

    class Half(mfld.references.Reference):
        l2 = 0.5

        def draw(self, place, n_particles, space, temperature, dtype):
            raise NotImplementedError

        def log_normaliser(self, space, temperature):
            return 0.0

    risk = mfld.EmpiricalRisk(RISK.model, INPUTS, INPUTS[:, 0], loss=Cauchy())
    assert repr(risk).endswith(", loss=Cauchy(), l2=0)")
    well = mfld.Potential(abs, space=mfld.Space(2), reference=Half())
    assert repr(well) == "Potential(2 coordinates, Half(l2=0.5))"


def test_signed_measures():
    model = mfld.TwoLayerNetwork(1, readout="fixed")
    risk = mfld.SignedRisk(model, INPUTS, INPUTS[:, 0], strength=0.5)
    shown = f"SignedRisk({model!r}, 12 samples, loss=Loss('half_squared'), strength=0.5, reduction={mfld.Bilevel()!r})"
    assert repr(mfld.Bilevel()) == "Bilevel(tolerance=1e-10)"
    assert repr(risk) == shown
    measure = mfld.SignedMeasure(model, np.zeros((2, 2)), [1.0, -0.5])
    assert repr(measure) == "SignedMeasure(2 positions, |nu|_TV=1.5)"
    assert repr(mfld.SignedMeasure(model, [[0, 0]], [1.0])) == "SignedMeasure(1 position, |nu|_TV=1)"
    spread = mfld.deconvolution.Sampled(np.hanning(7), spacing=0.5)
    assert repr(spread) == "Sampled(7 values, spacing=0.5)"
    grid = mfld.deconvolution.Convolution(spread, [np.arange(9.0)])
    assert repr(grid) == "Convolution(Sampled(7 values, spacing=0.5), 9)"
    found = mfld.deconvolve(np.hanning(9), mfld.deconvolution.Gaussian(1.0), 10.0)
    assert repr(found) == "Deconvolution(0 spikes, gap 0)"


def test_rows():
    assert repr(RISK.data) == "Rows(12 samples, 1 feature, 1 target column)"
    rows = Rows(np.zeros((4, 3)), np.zeros((4, 2)), [1, 1, 0, 2])
    assert repr(rows) == "Rows(4 samples, 3 features, 2 target columns, weighted)"


def test_notebooks_have_a_picture_where_matplotlib_is(monkeypatch):
    result = SOLVER.run(RISK, 50)
    pytest.importorskip("matplotlib")
    html = result._repr_html_()
    assert html.startswith("<pre>Result of MFLD on EmpiricalRisk(")
    assert "activation=&#x27;tanh&#x27;" in html
    assert "</svg>" in html
    assert "<?xml" not in html
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "svg" not in result._repr_html_()
    assert "svg" not in SOLVER.run(RISK, 0)._repr_html_()
