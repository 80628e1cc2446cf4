"""Rows that are held out, to judge and to choose l2 by: of each class the same share."""

import json
import re

import numpy as np
import pytest

from mfld import cli, experiments
from mfld.experiments import Recipe, splits

QUICK = {"n_steps": 3, "n_particles": 5}


def table(labels):
    rng = np.random.default_rng(0)
    labels = np.asarray(labels)
    classes = np.unique(labels)
    encoding = experiments.Encoding(tuple(experiments.encoding.Feature(f"x{k}") for k in range(3)), "y", ())
    return experiments.Dataset("a table", rng.normal(size=(len(labels), 3)), labels, classes, encoding)


@pytest.mark.parametrize("counts", [(50, 50), (97, 3), (30, 5, 2), (2, 2), (400, 40, 4)])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_class_is_held_out_in_its_share(counts, share, seed):
    n = sum(counts)
    labels = np.random.default_rng(9).permutation(np.repeat(np.arange(len(counts)), counts))
    rows, held_out, unjudged = splits.hold_out(n, labels, share, np.random.default_rng(seed))
    assert sorted([*rows, *held_out]) == list(range(n))
    assert len(held_out) == max(1, round(share * n))
    for k, count in enumerate(counts):
        there = np.count_nonzero(labels[held_out] == k)
        assert abs(there - share * count) <= 1
        assert (k in unjudged) == (there == 0)
        assert there < count
    other = splits.hold_out(n, labels, share, np.random.default_rng(seed + 5))[1]
    assert n < 10 or held_out.tolist() != other.tolist()


def test_validation_is_by_strata_too():
    labels = np.where(np.arange(500) % 20 == 3, "sick", "well")
    rows, _, _ = splits.hold_out(500, labels, 0.2, np.random.default_rng(0))
    parts = splits.folds(rows, labels, 400)
    assert len(parts) == 5
    assert sorted(np.concatenate(parts)) == sorted(rows)
    assert [np.count_nonzero(labels[part] == "sick") for part in parts] == [4] * 5
    assert np.count_nonzero(labels[rows[:100]] == "sick") == 5  # a sample is the beginning


def test_the_only_row_of_a_class_is_trained_on():
    labels = np.array(["a"] * 10 + ["b"])
    parts = splits.folds(np.arange(11), labels, 100)
    assert sorted(np.concatenate(parts)) == list(range(10))


def test_regressions_are_held_out_as_the_dice_fall():
    rows, held_out, unjudged = splits.hold_out(20, None, 0.25, np.random.default_rng(4))
    order = np.random.default_rng(4).permutation(20)
    assert held_out.tolist() == sorted(order[:5])
    assert rows.tolist() == order[5:].tolist()
    assert unjudged == []


@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_one_row_is_refused_by_name(seed):
    """Held out, it would leave one class to train on, and an accuracy of 1."""
    data = table(np.where(np.arange(60) == 31, "sick", "well"))
    message = r"the target must have at least 2 rows of each class, .* too few are of 'sick'"
    with pytest.raises(ValueError, match=message):
        experiments.train(data, seed, Recipe(**QUICK))
    with pytest.raises(ValueError, match=r"of 7\.0: leave these rows out or bring more, or say --task regression"):
        experiments.train(table(np.where(np.arange(60) == 31, 7.0, np.arange(60) % 2)), seed, Recipe(**QUICK))
    with pytest.raises(ValueError, match=r"test_share must leave rows of each class to train on, got 0.8; .* 'sick'"):
        experiments.train(table(["sick"] * 2 + ["well"] * 58), seed, Recipe(**QUICK, test_share=0.8))


def test_a_class_that_nothing_judges_is_said(tmp_path, capsys):
    rng = np.random.default_rng(1)
    labels = ["sick" if k in (12, 40) else "well" for k in range(60)]
    path = tmp_path / "data.csv"
    rows = zip(rng.normal(size=(60, 2)), labels, strict=True)
    path.write_text("a,b,y\n" + "\n".join(f"{a:.4f},{b:.4f},{y}" for (a, b), y in rows))
    command = ["train", str(path), "--quiet", "--n-steps", "100", "--n-particles", "5", "--l2", "0.01"]
    for seed in range(3):  # both are trained on, whatever the seed
        output = ["--seed", str(seed), "--output", str(tmp_path / f"{seed}.npz")]
        assert cli.main([*command, *output]) == 0
        assert "too rare to be judged by held-out rows: 'sick'" in capsys.readouterr().out
        assert cli.main([*command, *output, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["classes_not_held_out"] == ["sick"]
    assert cli.main([*command, "--drop", "a", "--test-share", "0.9"]) == 2
    assert re.search(r"--test-share must leave rows of each class to train on", capsys.readouterr().err)
