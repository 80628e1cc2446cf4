"""What a person sees of results, states, clouds and objectives: one to three lines."""

import sys

import numpy as np
import pytest

import mfld

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


def test_notebooks_have_a_picture_where_matplotlib_is(monkeypatch):
    result = SOLVER.run(RISK, 50)
    pytest.importorskip("matplotlib")
    html = result._repr_html_()
    assert html.startswith("<pre>Result of MFLD on EmpiricalRisk(")
    assert "activation=&#x27;tanh&#x27;" in html
    assert "</svg>" in html
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "svg" not in result._repr_html_()
    assert "svg" not in SOLVER.run(RISK, 0)._repr_html_()
