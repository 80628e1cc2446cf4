"""Shipped experiments: what each claims holds, and does not where its part is switched off; and what a file may say."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from mfld import cli, gallery, plots
from mfld.gallery.experiment import code

pytest.importorskip("matplotlib")

# Small settings of these take more than three seconds of a core.
LONG = {"bias", "games", "spikes"}


def cases():
    return [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in gallery.names()]


@pytest.mark.parametrize("name", cases())
def test_the_claim_holds_and_fails_without_the_part_under_study(name):
    experiment = gallery.load(name).varied("small")
    findings = experiment.run(executor=0)
    assert findings.holds, f"{experiment.claim}, got {findings.value}"
    figure = experiment.figure(findings)
    assert all(axes.has_data() for axes in figure.axes)
    assert f"{findings.value:.3g}" in figure.get_suptitle()
    without = experiment.varied("without").run(executor=0)
    assert not without.holds, f"{experiment.claim}, got {without.value} without the part"


@pytest.mark.slow
@pytest.mark.parametrize("name", gallery.names())
def test_the_claim_holds_in_the_quick_setting(name):
    findings = gallery.load(name).run(executor=0)
    assert findings.holds, f"{gallery.load(name).claim}, got {findings.value}"


@pytest.mark.parametrize("name", gallery.names())
def test_a_shipped_experiment_is_described(name):
    experiment = gallery.load(name)
    assert experiment.title
    assert experiment.shows
    assert experiment.source
    assert experiment.claim is not None
    assert {"small", "without"} <= experiment.variations.keys()
    assert importlib.import_module(f"mfld.gallery.library.{name}").__doc__
    settings = {name for names in code(name).SETTINGS.values() for name in names}
    told = set(experiment.settings) | set(experiment.sweep)
    assert told == settings if name != "train" else told <= settings  # a recipe has defaults


# ---- files -----------------------------------------------------------------------------------------------------------


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_varies_a_shipped_experiment(tmp_path):
    path = write(
        tmp_path / "own.toml",
        'experiment = "double_well"\nseeds = [3, 4]\n[start]\nn_particles = 50\n[sweep]\nmethod = ["ULA"]\n'
        "step_size = [0.01, 0.02]\n",
    )
    experiment = gallery.load(path)
    assert (experiment.name, experiment.code, experiment.claim) == ("own", "double_well", None)
    assert experiment.settings["temperature"] == 0.08
    findings = experiment.run(tmp_path / "runs.jsonl", executor=0)
    assert (findings.value, findings.holds) == (None, None)
    assert findings.runs.column("distance").shape == (1, 2, 2)  # method, step size, seed
    assert experiment.run(tmp_path / "runs.jsonl", executor=0).runs.n_new == 0
    assert [run["parameters"]["seed"] for run in findings.runs.runs] == [3, 4, 3, 4]


def test_a_file_describes_a_training(tmp_path):
    path = write(
        tmp_path / "own.toml",
        'seeds = [0, 1]\n[data]\ntable = "rows.csv"\n[model]\nn_particles = 20\n'
        '[objective]\nl2 = 0.01\nloss = "huber:1"\n'
        '[algorithm]\nn_steps = 30\ntemperature_schedule = "geometric:0.5:10"\n'
        '[sweep]\nactivation = ["relu", "tanh"]\n',
    )
    rows = "\n".join(f"{k},{(k % 7) * 1.5 + 0.1 * k}" for k in range(60))
    source = write(tmp_path / "rows.csv", f"a,b\n{rows}\n")
    text = path.read_text().replace("rows.csv", str(source))
    findings = gallery.load(write(path, text)).run(executor=0)
    assert findings.runs.column("test_loss").shape == (2, 2)
    assert np.isfinite(findings.runs.column("test_loss")).all()
    assert len(gallery.load(path).figure(findings).axes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'experiment = "train"\n[objective]\nloss = "hubert:1"',
            "objective.loss, 'hubert:1': loss must be one of squared",
        ),
        ('experiment = "train"\n[algorithm]\nl2_schedule = "off"', "algorithm.l2_schedule, 'off': must be off:STEP"),
        ('experiment = "train"\n[data]\ndrop = "a"', "data.drop must be a list"),
        (
            'experiment = "train"\n[data]\ntable = "no.csv"',
            "data.table must be a file, a URL .*; got 'no.csv'",
        ),
        ("seeds = [0", "own.toml must be TOML"),
        ('experiment = "doubel_well"', "experiment must be one of .*double_well.*; got 'doubel_well'"),
        (
            "[start]\ncenter = 1.0",
            r"start.center is unknown, allowed are centre, spread, n_particles; did you mean 'centre'",
        ),
        ("[start]\nstep_size = 1.0", r"start.step_size is unknown, allowed are .*: it belongs to \[algorithm\]"),
        ("[strat]\ncentre = 1.0", "strat is unknown, allowed are potential, start, .*; did you mean 'start'"),
        ("centre = 1.0", "centre is unknown, allowed are potential, start"),
        ("start = 1.0", "start must be a table, got 1.0"),
        ('[algorithm]\nmethod = "HMC"', "algorithm.method must be one of ULA, MALA, annealing; got 'HMC'"),
        ("[algorithm]\nn_steps = 1.5", "algorithm.n_steps must be an integer, got 1.5"),
        ("[algorithm]\nstep_size = -1", "algorithm.step_size must be finite and positive, got -1.0"),
        ("[sweep]\nn_step = [1]", "sweep.n_step is unknown, allowed are .*; did you mean 'n_steps'"),
        ("[sweep]\nn_steps = 1", "sweep.n_steps must be a list of values, got 1"),
        ("[sweep]\nn_steps = [1, 0]", r"sweep.n_steps\[1\] must be at least 1, got 0"),
        ("[sweep]\nn_steps = [1, 2, 1]", "sweep.n_steps must hold each value once, got 1 twice"),
        ("seeds = 1", "seeds must be a list of integers, got 1"),
        ("seeds = [1, 1]", "seeds must hold each seed once"),
        ("seeds = [-1]", r"seeds\[0\] must be between 0 and"),
        ("title = 1", "title must be a text, got 1"),
        ('[claim]\nquantity = "a"', "claim must have one of at_least and at_most, got none"),
        ('[claim]\nquantity = "a"\nat_least = 1\nat_most = 2', "claim must have one of .*, got at_least and at_most"),
        ("[claim]\nat_least = 1", "claim.quantity must be a text, got None"),
        ('[claim]\nquantity = "a"\nabove = 1', "claim.above is unknown, allowed are quantity, at_least, at_most"),
        ("[paper]\nn_stepps = 1", "paper.n_stepps is unknown, allowed are .*; did you mean 'n_steps'"),
        ("[paper]\nn_steps = 0", "paper.n_steps must be at least 1, got 0"),
        ("[paper.sweep]\nn_steps = [0]", r"paper.sweep.n_steps\[0\] must be at least 1, got 0"),
        ("[without]\nn_steps = 1", "without.part must be a text, got None"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_and_what_is_allowed(text, message, tmp_path):
    if "experiment" not in text:
        text = 'experiment = "double_well"\n' + text
    with pytest.raises(ValueError, match=message):
        gallery.load(write(tmp_path / "own.toml", text))


def test_a_variation_that_is_not_there_and_a_run_that_fails_are_named(tmp_path):
    path = write(tmp_path / "own.toml", 'experiment = "double_well"\n[algorithm]\nstep_size = 10.0\n')
    with pytest.raises(ValueError, match="own has no variation 'paper'"):
        gallery.load(path).varied("paper")
    with (
        pytest.warns(RuntimeWarning, match="2 of 3 runs failed"),
        pytest.raises(
            gallery.FailedRunsError,
            match=r"2 of 3 runs failed, the first, \{'method': 'ULA', 'seed': 0\}, by .*Diver",
        ),
    ):
        gallery.load(path).run(executor=0)


# ---- on the command line ---------------------------------------------------------------------------------------------


def test_an_experiment_is_run_drawn_and_not_run_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "double_well", "--small", "--processes", "0", "--json"]
    assert cli.main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["holds"] is True
    assert first["new_runs"] == 3
    assert (tmp_path / "double_well-small.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["new_runs"] == 0
    assert cli.main([*arguments[:-1], "--without"]) == 1
    out = capsys.readouterr().out
    assert "switched off: the annealing" in out
    assert "does not hold" in out


@pytest.mark.filterwarnings("ignore:2 of 3 runs failed")
def test_a_run_that_fails_is_no_claim_that_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.toml", 'experiment = "double_well"\n[algorithm]\nstep_size = 10.0\n')
    assert cli.main(["run", "own.toml", "--processes", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mfld: 2 of 3 runs failed, the first, {'method': 'ULA', 'seed': 0}, by ")
    assert not (tmp_path / "own.png").exists()


def test_an_interrupted_experiment_says_where_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def stopped(self, path, **_):
        path.write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery.Experiment, "run", stopped)
    assert cli.main(["run", "double_well", "--small"]) == 130
    said = "mfld: interrupted; the runs that ended are in double_well-small.jsonl, from which the same command goes on"
    assert capsys.readouterr().err.splitlines() == [said]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "double_well", "--output", "."], "mfld: . cannot be written: it is a folder"),
        (["run", "double_well", "--output", "a/b.png"], "mfld: a/b.png cannot be written: there is no folder a"),
        (["run", "double_well", "--runs", "double_well.png"], "mfld: --output and --runs cannot both be"),
        (["run", "double_well", "--output", "a.bmp"], "mfld: a.bmp must end in one of"),
        (["run", "double_well", "--paper"], "mfld: double_well has no variation 'paper'"),
        (["run", "own.toml"], "mfld: own.toml: No such file or directory"),
        (["experiments", "own.toml"], "mfld: experiment must be one of alignment, "),
    ],
)
def test_what_a_command_cannot_do_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_shipped_files_are_listed_and_printed_to_be_varied(tmp_path, capsys):
    assert cli.main(["experiments"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in gallery.names())
    assert cli.main(["experiments", "double_well"]) == 0
    experiment = gallery.load(write(tmp_path / "own.toml", capsys.readouterr().out))
    shipped = gallery.load("double_well")
    assert (experiment.settings, experiment.claim) == (shipped.settings, shipped.claim)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_follow_the_theme(theme):
    experiment = gallery.load("double_well").varied("small")
    with plots.theme(theme):
        figure = experiment.figure(experiment.run(executor=0))
    assert (sum(figure.axes[0].get_facecolor()[:3]) > 1.5) == (theme == "light")


def test_the_page_of_the_experiments_says_what_their_files_say():
    page = (Path(__file__).parent.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): row for row in rows}
    assert list(told) == gallery.names()
    for name, (_, title, quantity, bound, value, part) in told.items():
        experiment = gallery.load(name)
        assert (title, f"{quantity}: {bound}") == (experiment.title, str(experiment.claim))
        assert experiment.claim.holds(float(value))
        assert part == experiment.variations["without"]["part"]
    papers = sorted(name for name in gallery.names() if "paper" in gallery.load(name).variations)
    assert f"of `{'`, `'.join(papers[:-1])}`\nand `{papers[-1]}`" in page
