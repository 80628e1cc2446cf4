"""Learning from curves: one neuron on functions, real spectra, the estimators and the command line."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import mfld
from mfld import cli
from mfld import functional_data as fd
from mfld.experiments import TrainedModel, curves, one_neuron
from mfld.experiments.encoding import Encoding, Feature
from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor

TABLE = Path(__file__).parent / "data" / "tecator.csv"
TECATOR = np.loadtxt(TABLE, delimiter=",", skiprows=1)
WAVELENGTHS, SPECTRA, FAT = np.arange(850.0, 1050.0, 2.0), TECATOR[:, :100], TECATOR[:, 101]
TRAIN, TEST = slice(0, 129), slice(129, 215)
FOLDS = KFold(5, shuffle=True, random_state=0)
COMPONENTS = fd.PowerLaw(2.0, basis=fd.PrincipalComponents(whitened=True))
ONE = {"n_jobs": 1, "random_state": 0}


def rmse(predicted, rows=TEST):
    return float(np.sqrt(np.mean((predicted - FAT[rows]) ** 2)))


# ---- one neuron ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [50, 100])
def test_the_mean_field_network_learns_one_neuron_best(n):
    ours, ridge, smoother = np.mean([list(one_neuron.errors(n, seed).values()) for seed in (0, 1)], axis=0)
    assert ours < 0.7 * ridge
    assert ours < 0.7 * smoother
    assert ours < 0.16


def test_the_targets_are_those_of_one_neuron():
    few, more = one_neuron.draw(5, 3), one_neuron.draw(500, 3)
    assert np.std(more.targets - more.truth) == pytest.approx(one_neuron.NOISE, rel=0.15)
    # arctanh of the truth is an affine function of the curve: one for all numbers of rows
    x = np.concatenate([more.curves, few.curves])
    z = np.arctanh(np.concatenate([more.truth, few.truth]))
    design = np.c_[fd.Fourier().coefficients(x, one_neuron.grid(), 50), np.ones(505)]
    found = np.linalg.lstsq(design, z, rcond=None)[0]
    assert np.abs(design @ found - z).max() < 1e-6
    assert found[-1] == pytest.approx(0.5, abs=1e-6)
    assert np.sqrt(np.sum(found[:50] ** 2)) == pytest.approx(3, abs=1e-6)


# ---- Tecator ---------------------------------------------------------------------------------------------------------


def component_regression(n):
    """Linear regression on principal components by trapezoidal weights: the baseline, in a few lines of its own."""
    roots = np.sqrt(np.r_[0.5, np.ones(98), 0.5])
    centred = (SPECTRA - SPECTRA[TRAIN].mean(axis=0)) * roots
    scores = centred @ np.linalg.svd(centred[TRAIN], full_matrices=False)[2][:n].T
    design = np.c_[np.ones(215), scores]
    return rmse(design[TEST] @ np.linalg.lstsq(design[TRAIN], FAT[TRAIN], rcond=None)[0])


def test_the_data_are_those_of_the_baseline():
    assert [round(component_regression(n), 2) for n in (1, 3, 5, 10)] == [12.05, 8.72, 3.34, 2.85]
    note = TABLE.with_suffix(".md").read_text()
    assert "The data can be redistributed as long as this" in note


@pytest.mark.slow
def test_fat_from_spectra_tuned_on_the_training_rows_alone():
    """Order of the derivative by five folds of the 129 rows; for kernel ridge regression its numbers, too."""
    ours, theirs = [], []
    for order in (0, 1, 2):
        x = fd.derivative(SPECTRA, WAVELENGTHS, order)
        model = MeanFieldRegressor(covariance=COMPONENTS, grid=WAVELENGTHS, n_modes=20, l2=1e-5, n_steps=600, **ONE)
        scores = cross_val_score(model, x[TRAIN], FAT[TRAIN], cv=FOLDS, scoring="neg_mean_squared_error")
        ours.append((scores.mean(), model, x))
        grid = {"kernelridge__alpha": [1e-7, 1e-5, 1e-3, 1e-1], "kernelridge__gamma": [1e-4, 1e-3, 1e-2]}
        search = GridSearchCV(
            make_pipeline(StandardScaler(), KernelRidge(kernel="rbf")), grid, cv=FOLDS, scoring="neg_mean_squared_error"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of matrices that are nearly singular
            search.fit(x[TRAIN], FAT[TRAIN] - FAT[TRAIN].mean())
        theirs.append((search.best_score_, search, x))
    _, model, x = max(ours, key=lambda each: each[0])
    _, ridge, kernel_x = max(theirs, key=lambda each: each[0])
    error = rmse(model.fit(x[TRAIN], FAT[TRAIN]).predict(x[TEST]))
    beside = rmse(ridge.predict(kernel_x[TEST]) + FAT[TRAIN].mean())
    print(f"mean-field network {error:.2f}, kernel ridge regression {beside:.2f}, linear on 10 components 2.85")
    assert error < 1.2
    assert error < component_regression(10) / 2


def test_fat_meat_from_lean_meat():
    """Whether there is more than a fifth of fat: classification of real curves."""
    x, fat = fd.derivative(SPECTRA, WAVELENGTHS, 2), FAT > 20
    model = MeanFieldClassifier(covariance=COMPONENTS, grid=WAVELENGTHS, n_modes=20, l2=1e-4, n_steps=300, **ONE)
    assert model.fit(x[TRAIN], fat[TRAIN]).score(x[TEST], fat[TEST]) > 0.96
    raw = clone(model).fit(SPECTRA[TRAIN], fat[TRAIN])
    assert raw.score(SPECTRA[TEST], fat[TEST]) > 0.9
    assert raw.predict_proba(SPECTRA[TEST]).shape == (86, 2)


# ---- estimators ------------------------------------------------------------------------------------------------------


@parametrize_with_checks(
    [
        MeanFieldClassifier(covariance=fd.PowerLaw(), n_particles=64, n_steps=200),
        MeanFieldRegressor(covariance=fd.PowerLaw(), n_particles=64, n_steps=200),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_an_estimator_is_the_network_on_centred_curves_of_one_scale():
    model = MeanFieldRegressor(covariance=fd.Matern(20.0), grid=WAVELENGTHS, n_modes=10, n_steps=20, **ONE)
    model.fit(SPECTRA, FAT)
    network = mfld.FunctionalNetwork(WAVELENGTHS, fd.Matern(20.0), 10)
    z = network.inputs(SPECTRA - SPECTRA.mean(axis=0))
    z /= np.sqrt(np.mean(np.sum(z**2, axis=1)))
    expected = model.model_.predict(model.cloud_.particles, z) * FAT.std() + FAT.mean()
    np.testing.assert_allclose(model.predict(SPECTRA), expected, rtol=1e-6)
    # Units of the curves, float32 apart, do not matter; those of single points would.
    other = clone(model).fit(1024 * SPECTRA, FAT)
    np.testing.assert_allclose(other.predict(1024 * SPECTRA), expected, rtol=1e-6)
    bare = clone(model).set_params(standardise=False).fit(SPECTRA, FAT)
    np.testing.assert_allclose(bare.scaling_.apply(SPECTRA, np.float64), network.inputs(SPECTRA), rtol=1e-9)


@pytest.mark.parametrize("covariance", [COMPONENTS, fd.PowerLaw(2.0)], ids=str)
@pytest.mark.parametrize("size", [2.0**-300, 2.0**300])
def test_units_of_curves_do_not_matter(covariance, size):
    model = MeanFieldRegressor(covariance=covariance, grid=WAVELENGTHS, n_modes=5, n_steps=5, **ONE)
    expected = model.fit(SPECTRA, FAT).predict(SPECTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clone(model).fit(SPECTRA * size, FAT).predict(SPECTRA * size)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_of_a_gram_matrix_are_taken_with_their_columns():
    x = SPECTRA[:60] - SPECTRA[:60].mean(axis=0)
    covariance = fd.PowerLaw(1.0, basis=fd.KernelComponents())
    model = MeanFieldRegressor(covariance=covariance, n_modes=4, n_steps=5, **ONE)
    found = cross_val_score(model, x @ x.T, FAT[:60], cv=3, error_score="raise")
    for score, (train, test) in zip(found, KFold(3).split(x), strict=True):
        own = clone(model).fit(x[train] @ x[train].T, FAT[train])
        assert score == pytest.approx(own.score(x[test] @ x[train].T, FAT[test]), abs=1e-6)


def test_more_modes_than_the_estimator_finds_are_no_warning():
    X, y = load_iris(return_X_y=True)
    model = MeanFieldClassifier(covariance=fd.RBF(5.0), n_modes=64, n_steps=20, **ONE).fit(X, y)
    assert model.model_.n_features <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": WAVELENGTHS[1:]}, "grid must have 100 points, one for each feature, got 99"),
        ({"covariance": None, "grid": WAVELENGTHS}, "grid must be None without a covariance"),
        ({"covariance": 2.0}, r"covariance must be a Covariance, like PowerLaw\(2.0\), got 2.0"),
        ({"model": lambda p, k: None}, "model must be None where covariance is given"),
        ({"n_modes": 0}, "n_modes must be at least 1, got 0"),
    ],
)
def test_misuse_of_the_estimators(arguments, message):
    model = MeanFieldRegressor(**{"covariance": COMPONENTS, **arguments})
    with pytest.raises((TypeError, ValueError), match=message):
        model.fit(SPECTRA, FAT)


def test_a_fit_goes_on_with_its_curves():
    model = MeanFieldRegressor(covariance=COMPONENTS, grid=WAVELENGTHS, n_modes=5, n_steps=5, warm_start=True, **ONE)
    model.fit(SPECTRA, FAT).fit(SPECTRA, FAT)
    assert model.n_iter_ == 10
    with pytest.raises(ValueError, match="n_modes must be 5 as before in a fit that goes on, got 6"):
        model.set_params(n_modes=6).fit(SPECTRA, FAT)


# ---- the command line ------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    status = cli.main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_train_and_predict_on_curves(tmp_path, capsys):
    output, scores = tmp_path / "fat.npz", tmp_path / "fat.csv"
    columns = ("--header", "yes", "--target", "fat", "--drop", "water", "--drop", "protein")
    quick = ("--n-steps", 300, "--n-particles", 60, "--l2", "1e-3", "--quiet", "--num-threads", 1)
    status, out, err = run(capsys, "train", TABLE, *columns, "--functional", *quick, "--output", output, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["features"] == 100
    assert report["grid"] == WAVELENGTHS.tolist()
    trained = TrainedModel.load(output)
    assert trained.scaling.projection.shape == (100, trained.model.n_features)
    assert trained.provenance["scores"]["test"]["R2"] > 0.95
    status, out, err = run(capsys, "predict", output, TABLE, "--output", scores)
    assert (status, err) == (0, "")
    predicted = np.loadtxt(scores, delimiter=",", skiprows=1, usecols=-1)
    assert np.corrcoef(predicted, FAT)[0, 1] > 0.98
    matern = ("--functional", "matern:30", "--n-modes", 8)
    assert run(capsys, "train", TABLE, *columns, *matern, *quick, "--output", output)[0] == 0
    assert TrainedModel.load(output).model.n_features == 8
    assert TrainedModel.load(output).hyperparameters["functional"] == "Matern(length=30.0, smoothness=1.5, scale=1.0)"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("400 410 430 431", [400.0, 410.0, 430.0, 431.0]),
        ("4000 3000 2500 400", [-4000.0, -3000.0, -2500.0, -400.0]),
        ("1e-6 5e-7 6e-7 7e-7", [0.0, 1 / 3, 2 / 3, 1.0]),
        ("a b c d", [0.0, 1 / 3, 2 / 3, 1.0]),
        ("-1.5e308 0 1 1.5e308", [0.0, 1 / 3, 2 / 3, 1.0]),
    ],
)
def test_points_are_the_names_of_columns(names, expected):
    names = names.split()
    encoding = Encoding(tuple(Feature(name) for name in names), "y", (*names, "y"))
    np.testing.assert_allclose(curves.grid(encoding).points, expected)


def test_the_number_of_modes_is_one_of_a_covariance(capsys):
    status, _, err = run(capsys, "train", TABLE, "--n-modes", 3)
    assert status == 2
    assert "--n-modes is of the covariance that --functional chooses: give both" in err


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wavelet", "must be one of components, power, rbf, matern; got 'wavelet'"),
        ("rbf", "must be rbf:LENGTH with a number, got 'rbf'"),
        ("rbf:-1", "length must be finite and positive, got -1.0"),
    ],
)
def test_covariances_that_are_none(spec, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", str(TABLE), "--functional", spec])
    assert message in capsys.readouterr().err


def test_columns_that_are_no_points_of_a_curve(tmp_path, capsys):
    path = tmp_path / "people.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{'uv'[i % 2]},{i * i}\n" for i in range(12)))
    status, _, err = run(capsys, "train", path, "--functional", "--quiet", "--task", "regression")
    assert status == 2
    assert (
        "functional needs columns of numbers without gaps, which are the points of a curve: 'b' is none, leave it out"
        in err
    )
