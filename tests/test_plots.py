"""Pictures: colours, themes, and clouds that move. What each function draws is tested with its subject."""

import itertools

import numpy as np
import pytest

from mfld import cli, plots

matplotlib = pytest.importorskip("matplotlib")
to_rgb = pytest.importorskip("matplotlib.colors").to_rgb
Image = pytest.importorskip("PIL.Image")

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009):
# severity 1 of the three kinds, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(colour):
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return linear(colour) @ [0.2126, 0.7152, 0.0722]


def lab(rgb):
    """CIE 1976 coordinates of linear sRGB, white D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    t = to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_colours_are_told_apart_with_any_colour_vision(kind):
    seen = [lab(np.array(DEFICIENCIES[kind]) @ linear(colour)) for colour in plots.COLOURS]
    # A difference of 2.3 is just noticed; lines are thin, so that several times that is asked for.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_and_text_stand_out_from_their_paper(theme):
    settings = plots.settings(theme)
    paper = luminance(settings["axes.facecolor"])

    def contrast(colour):
        low, high = sorted((paper, luminance(colour)))
        return (high + 0.05) / (low + 0.05)

    assert min(map(contrast, plots.COLOURS)) >= 3  # of graphics, WCAG 2.1, 1.4.11
    assert contrast(settings["text.color"]) >= 7  # of text, 1.4.6


def test_a_theme_holds_within_its_context_alone():
    before = dict(matplotlib.rcParams)
    with plots.theme("dark"):
        figure = plots.bands([0.0, 1.0], [[0.0, 1.0], [1.0, 2.0]], title="a band")
    (axes,) = figure.axes
    assert luminance(axes.get_facecolor()[:3]) < 0.02
    assert luminance(axes.title.get_color()) > 0.5
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="theme must be one of light, dark"), plots.theme("grey"):
        pass


@pytest.mark.parametrize("d", [1, 2])
def test_a_cloud_that_moves(d, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(200, d)) + 10 * k for k in range(3)]
    path = tmp_path / "cloud.gif"
    drawn = []
    plots.moving(frames, path, behind=drawn.append, titles=["a", "b", "c"])
    assert len(drawn) == 3
    columns = []
    with Image.open(path) as image:
        for k in range(3):
            image.seek(k)
            picture = np.asarray(image.convert("RGB")).astype(float)
            blue = (np.abs(picture - 255 * np.array(to_rgb(plots.COLOURS[0]))).sum(axis=2) < 60)[40:]
            columns.append(np.nonzero(blue)[1].mean())
    assert columns[0] + 20 < columns[1] < columns[2] - 20  # the cloud goes to the right


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": []}, "frames must have one array"),
        ({"frames": [[[0.0]], [[0.0, 1.0]]]}, r"frames\[1\] must have shape \(n, 1\) .*to match the first one"),
        ({"titles": ["a", "b"]}, "titles must be 1 texts"),
        ({"limits": [(0, 1), (0, 1)]}, "limits must be 1 pairs"),
        ({"path": "a.png"}, r"a\.png must end in \.gif"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        plots.moving(**{"frames": [[[0.0]]], "path": "a.gif", **wrong})


def test_names_with_dollars_are_no_formulas(tmp_path, monkeypatch):
    # Between two dollars matplotlib reads a formula, and this one it cannot.
    monkeypatch.chdir(tmp_path)
    rows = [f"{k % 7},{k % 5},{('$no$frac{', '2 $a_$')[k % 2]}" for k in range(40)]
    table = tmp_path / "a$_$b.csv"
    table.write_text("\n".join(["$x^$,$b_$,y", *rows]))
    quick = ["--n-steps", "5", "--n-particles", "8"]
    for command in (["train", *quick, "--l2", "0.01", "--report", "page.html"], ["density", "--drop", "y"]):
        assert cli.main([command[0], table.name, *command[1:]]) == 0
        assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("n", [2, 5, 6, 40])
def test_classes_have_a_colour_each(n):
    shades = plots.style.classes(n)(np.arange(n))
    assert len(np.unique(shades, axis=0)) == n
