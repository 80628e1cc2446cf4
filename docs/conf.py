"""The site: `sphinx-build -W -b html docs build/site` with the extra ``docs``."""

import mfld

project = "mfld"
author = "the mfld developers"
copyright = author  # a name that Sphinx asks for
release = mfld.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas without a network
]
exclude_patterns = ["results"]
templates_path = ["_templates"]

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath"]
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

default_role = "code"  # docstrings quote names by single backticks
autodoc_typehints = "none"  # docstrings say types and shapes
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes are listed once, with the class
suppress_warnings = ["ref.python"]  # types in docstrings are words with shapes, which several attributes are called by

html_theme = "furo"
html_title = f"mfld {release}"
html_theme_options = {"sidebar_hide_name": False}
html_show_sphinx = False


def skip(app, what, name, obj, skipped, options):
    """True for what scikit-learn adds to each estimator, whose text refers to its own site."""
    return skipped or name == "get_metadata_routing" or (name.startswith("set_") and name.endswith("_request"))


def setup(app):
    app.connect("autodoc-skip-member", skip)
