"""What a person expects of a command line: version, examples, exit status, no colours, completion, a page of a run."""

import base64
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import mfld
from mfld import cli, plots

COMMANDS = [
    "train",
    "predict",
    "density",
    "gan",
    "generate",
    "synth",
    "deconvolve",
    "convert",
    "run",
    "experiments",
    "info",
    "config",
]


def test_python_m_mfld_has_the_version():
    done = subprocess.run([sys.executable, "-m", "mfld", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mfld {mfld.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    examples = [line.strip() for line in shown.partition("\nexamples:\n")[2].splitlines()]
    assert examples
    assert "\x1b" not in shown
    for example in examples:
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "mfld"
        assert cli._parser().parse_args(arguments).command is not None


def test_every_command_is_listed_with_the_exit_status(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert "Exit status" in shown
    assert set(re.findall(r"^    (\w+)", shown, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {}])
def test_nothing_is_coloured(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mfld", "run", "unknown"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mfld tr", ["train"]),
        ("mfld run double", ["double_well"]),
        ("mfld train --metho", ["--method"]),
        ("mfld train bre", ["breast_cancer"]),
        ("mfld train ro", ["rows.csv"]),
        ("mfld run --theme ", ["light", "dark"]),
    ],
)
def test_a_shell_completes(line, expected, tmp_path):
    pytest.importorskip("argcomplete")
    (tmp_path / "rows.csv").touch()
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "mfld"], check=True, cwd=tmp_path, env={**os.environ, **asked})
    assert set(expected) <= {each.strip() for each in answer.read_text().split("\n")}


# ---- a page of a run -------------------------------------------------------------------------------------------------

QUICK = ["--n-steps", "40", "--n-particles", "30", "--l2", "0.01", "--quiet"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("pages")
    for name in ("iris", "diabetes"):
        report = ["--report", "--report"] if name == "iris" else ["--report"]
        assert (
            cli.main(["train", name, *QUICK, *report, str(folder / f"{name}.html"), "--output", str(folder / "m.npz")])
            == 0
        )
    return folder


def test_a_page_has_what_a_run_says(pages):
    iris, diabetes = ((pages / f"{name}.html").read_text(encoding="utf-8") for name in ("iris", "diabetes"))
    for name in ("Data", "Scores", "Loss", "Confusion", "Calibration", "Neurons", "Bias report", "Every choice"):
        assert f">{name}</h2>" in iris
    assert ">Residuals</h2>" in diabetes
    assert ">Confusion</h2>" not in diabetes
    counts = [
        int(n) for n in re.findall(r"<td>(\d+)</td>", iris.partition(">Confusion</h2>")[2].partition("</table>")[0])
    ]
    trained = mfld.cli.train.experiments.load("iris")
    assert len(counts) == 9
    assert sum(counts) == round(0.2 * len(trained.inputs))
    assert re.search(r"step-size bias", iris)


def test_a_page_is_self_contained_with_texts_for_its_pictures(pages):
    page = (pages / "iris.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href|srcset)=\"(?!data:|#)", page)
    assert "<script" not in page
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', page)
    assert len(pictures) == page.count("<img") == 3
    for picture, text in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")
        assert len(text) > 30


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOOK = """
<script>
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach(each => { each.open = true; });
    const order = [...page.querySelectorAll("a[href], summary, [tabindex]")];
    return {
      width: root.clientWidth, content: root.scrollWidth,
      pictures: [...page.images].every(image => image.naturalWidth > 100 && image.width <= root.clientWidth),
      reached: order.every(each => { each.focus(); return page.activeElement === each; }),
      font: Math.min(...[...page.querySelectorAll("p, td, li, figcaption")].map(
        each => parseFloat(frame.contentWindow.getComputedStyle(each).fontSize))),
      headings: [...page.querySelectorAll("h1, h2")].length,
    };
  });
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_a_page_is_readable_on_a_phone_and_by_keyboard(name, pages, tmp_path):
    page = html.escape((pages / f"{name}.html").read_text(encoding="utf-8"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{page}"></iframe>' for width in (360, 1200))
    path = tmp_path / "look.html"
    path.write_text(f"<!doctype html><body>{frames}{LOOK}</body>", encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/own",
    ]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", path.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert b"CONSOLE" not in done.stderr
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout.decode(), re.DOTALL)[1]))
    for look in found:
        assert look["content"] <= look["width"]  # nothing sticks out to the right
        assert look["pictures"]
        assert look["reached"]
        assert look["font"] >= 14
        assert look["headings"] >= 7


@pytest.mark.parametrize(
    ("report", "message"),
    [("3", "must be at least 4, got 3, or a file whose name ends in .html"), ("page.txt", "must be an integer")],
)
def test_a_report_is_a_number_or_a_page(report, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "iris", "--report", report])
    assert message in capsys.readouterr().err


def test_calibration_shows_the_share_that_is_right():
    pytest.importorskip("matplotlib")
    axes = plots.calibration(
        [0.95] * 20 + [0.55] * 8 + [0.2], [True] * 15 + [False] * 5 + [True, False] * 4 + [True]
    ).axes[0]
    x, y = axes.containers[0].lines[0].get_data()
    np.testing.assert_allclose(x, [0.55, 0.95])  # one row is too few to say
    np.testing.assert_allclose(y, [0.5, 0.75])
    with pytest.raises(ValueError, match="probabilities must be between 0 and 1"):
        plots.calibration([1.5], [True])
    with pytest.raises(ValueError, match=r"right must have shape \(1,\)"):
        plots.calibration([0.5], [True, False])
    drawn = plots.residuals([1.0, 2.0], [1.5, 1.0]).axes[0].lines[1]
    np.testing.assert_allclose(drawn.get_xydata(), [[1.5, -0.5], [1.0, 1.0]])
