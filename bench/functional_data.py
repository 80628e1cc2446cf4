"""Networks on functions: the figure of docs/functional-data.md, and what a step costs against the number of modes.

python bench/functional_data.py figure docs/functional-data.png
python bench/functional_data.py cost
"""

import sys
import time
from pathlib import Path

import numpy as np
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mfld
from mfld import functional_data as fd
from mfld import plots
from mfld.experiments import one_neuron
from mfld.sklearn import MeanFieldRegressor

SIZES, SEEDS = (25, 50, 100, 200), range(4)
TECATOR = Path(__file__).parent.parent / "tests" / "data" / "tecator.csv"


def figure(path):
    picture = plots.figure(11, 3.8)
    left, right = picture.subplots(1, 2)
    found = [[one_neuron.errors(n, seed) for seed in SEEDS] for n in SIZES]
    for k, name in enumerate(one_neuron.METHODS):
        errors = np.array([[each[name] for each in row] for row in found])
        left.loglog(SIZES, errors.mean(axis=1), color=plots.colour(k), marker=plots.marker(k), label=name)
        left.fill_between(SIZES, errors.min(axis=1), errors.max(axis=1), color=plots.colour(k), alpha=0.15, linewidth=0)
        print(name, *[f"{error:.3f}" for error in errors.mean(axis=1)])
    left.set(xlabel="curves to train on", ylabel="root mean square error", title="One neuron on functions")
    plots.ticks_at(left.xaxis, SIZES)
    plots.ticks_at(left.yaxis, [0.05, 0.1, 0.2, 0.4])
    left.set_ylim(0.025, 0.6)
    left.legend(frameon=False, loc="lower left")

    table = np.loadtxt(TECATOR, delimiter=",", skiprows=1)
    wavelengths = np.arange(850.0, 1050.0, 2.0)
    spectra, fat = fd.derivative(table[:, :100], wavelengths, 2), table[:, 101]
    centred = spectra[:129] - spectra[:129].mean(axis=0)
    network = mfld.FunctionalNetwork(wavelengths, fd.Matern(30.0, 2.5), 20)
    inputs = network.inputs(centred)
    inputs /= np.sqrt(np.mean(np.sum(inputs**2, axis=1)))
    scaled = (fat[:129] - fat[:129].mean()) / fat[:129].std()
    risk = mfld.EmpiricalRisk(network, inputs, scaled, loss="half_squared", l2=1e-4)
    solver = mfld.MFLD(200, temperature=2e-6, dynamics=mfld.Overdamped(ridge="crank_nicolson"))
    particles = solver.run(risk, 2000, record_every=2000).particles
    fine = np.linspace(850, 1048, 400)
    w, r = network.weight_functions(particles, fine), particles[:, network.slices["readout"]][:, 0]
    strongest = np.argsort(-np.abs(r) * np.sqrt(np.sum(particles[:, :20] ** 2, axis=1)))[:25]
    for m in strongest:
        right.plot(fine, np.sign(r[m]) * w[m], color=plots.colour(0), alpha=0.3, linewidth=1)
    right.axhline(0, color=plots.ink(), linewidth=0.7)
    right.set(xlabel="wavelength in nm", ylabel="weight function, turned by its readout")
    right.set_title("Neurons for the fat of meat (25 strongest)")
    for axes in (left, right):
        plots.open_axes(axes)
    plots.save(picture, path)


def spectra():
    """Errors of fat on the 86 test rows, with all choices by five folds of the 129 training rows."""
    table = np.loadtxt(TECATOR, delimiter=",", skiprows=1)
    wavelengths, fat, rows = np.arange(850.0, 1050.0, 2.0), table[:, 101], slice(0, 129)
    folds = KFold(5, shuffle=True, random_state=0)
    candidates = {"mean-field network": [], "kernel ridge regression": []}
    numbers = {"kernelridge__alpha": 10.0 ** np.arange(-8, 1), "kernelridge__gamma": 10.0 ** np.arange(-5, 0)}
    for order in (0, 1, 2):
        x = fd.derivative(table[:, :100], wavelengths, order)
        for exponent in (1.0, 2.0, 3.0):
            covariance = fd.PowerLaw(exponent, basis=fd.PrincipalComponents(whitened=True))
            model = MeanFieldRegressor(
                covariance=covariance, grid=wavelengths, n_modes=20, l2=1e-5, n_steps=3000, random_state=0
            )
            scores = cross_val_score(model, x[rows], fat[rows], cv=folds, scoring="neg_mean_squared_error")
            choice = f"derivative {order}, exponent {exponent:g}"
            candidates["mean-field network"].append((scores.mean(), choice, model.fit(x[rows], fat[rows]), x, 0.0))
        search = GridSearchCV(
            make_pipeline(StandardScaler(), KernelRidge(kernel="rbf")), numbers, cv=folds,
            scoring="neg_mean_squared_error",
        )  # fmt: skip
        offset = fat[rows].mean()
        search.fit(x[rows], fat[rows] - offset)
        candidates["kernel ridge regression"].append((search.best_score_, f"derivative {order}", search, x, offset))
    for name, each in candidates.items():
        score, choice, model, x, offset = max(each, key=lambda candidate: candidate[0])
        error = np.sqrt(np.mean((model.predict(x[129:]) + offset - fat[129:]) ** 2))
        print(f"{name}: {error:.2f} on the test rows, {np.sqrt(-score):.2f} by folds, with {choice}")


def cost():
    """Seconds of 50 steps of 1000 neurons on 500 curves, best of three, and the network on K plain features."""
    t = np.linspace(0, 1, 1025)
    curves = np.random.default_rng(0).normal(size=(500, 30)) @ np.cos(np.pi * np.outer(np.arange(30), t))
    print("  K   functional  features  ratio")
    for n_modes in (16, 64, 256, 1024):
        network = mfld.FunctionalNetwork(t, fd.PowerLaw(2.0), n_modes)
        features = np.random.default_rng(1).normal(size=(500, n_modes)).astype(np.float32)
        times = {}
        pair = ((network, network.inputs(curves).astype(np.float32)), (mfld.TwoLayerNetwork(n_modes), features))
        for _ in range(3):
            for model, inputs in pair:
                risk = mfld.EmpiricalRisk(model, inputs, np.ones(500), loss="half_squared", l2=1e-3)
                dynamics = mfld.Overdamped(ridge="crank_nicolson")
                solver = mfld.MFLD(1000, step_size=1e-4, temperature=1e-4, dynamics=dynamics, num_threads=1)
                start = time.perf_counter()
                solver.run(risk, 50, record_every=50)
                seconds = time.perf_counter() - start
                times[type(model)] = min(seconds, times.get(type(model), np.inf))
        ours, theirs = times[mfld.FunctionalNetwork], times[mfld.TwoLayerNetwork]
        print(f"{n_modes:5d} {ours:9.3f} {theirs:10.3f} {ours / theirs:7.2f}", flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"figure": figure, "spectra": spectra, "cost": cost}[command](*arguments)
