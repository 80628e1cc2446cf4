"""The structure of the package: imports point one way, and no part asks for the class of another."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mfld

ROOT = Path(mfld.__file__).parent
FILES = {
    ".".join(("mfld", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# Each layer may import from those above it in this list, and from its own package.
LAYERS = [
    ["_core"],
    ["validation", "floating", "extras", "lazy", "description"],
    ["native", "noise", "ranks", "bfloat16"],
    ["space"],
    ["state", "references", "files", "standard", "config"],
    ["errors", "schedules", "linear"],
    ["data", "mixtures", "fourier", "schemes"],
    ["models", "losses", "likelihoods", "plain", "kernels", "features", "autodiff"],
    ["signed_measures", "deconvolution", "payoffs", "privacy", "residual"],
    ["objectives"],
    ["potentials", "pruning", "gradients", "thinning"],
    ["interactions", "clipping"],
    ["dynamics", "label_noise", "warm_start"],
    ["stepping", "outer_weights"],
    ["step_size", "sampling"],
    ["annealing", "wells"],
    ["gibbs"],
    ["certificates", "signed_certificates"],
    ["algorithms", "fokker_planck"],
    ["scaling"],
    ["diagnostics", "mpi", "pieces"],
    ["quantities", "callbacks", "statistics", "spikes"],
    ["bias", "theory", "equilibria", "control"],
    ["checkpoint", "posteriors", "sweeps"],
    ["functional_data"],
    ["fitting", "density", "diffusion", "synthesis", "generative"],
    ["private_fitting"],
    ["experiments"],
    ["sklearn"],
    ["plots"],
    ["gallery"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports_of(module: str) -> set[str]:
    """Modules of the package that one imports, those for types and within functions included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")])
                base = base.strip(".")
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names]
        else:
            continue
        found |= {name for name in names if name in FILES and name != module}
    return found


GRAPH = {module: imports_of(module) for module in FILES}


def layer(module: str) -> str:
    return module.split(".")[1]


def test_the_walk_sees_imports():
    assert "mfld.stepping" in GRAPH["mfld.algorithms.mfld"]
    assert "mfld.validation" in GRAPH["mfld.noise"]
    assert sum(map(len, GRAPH.values())) > 150


@pytest.mark.parametrize("module", [module for module in GRAPH if module != "mfld"])
def test_imports_point_one_way(module):
    wrong = {
        other
        for other in GRAPH[module]
        if other != "mfld" and layer(other) != layer(module) and RANK[layer(other)] >= RANK[layer(module)]
    }
    assert not wrong, f"{module} imports {sorted(wrong)}, which stand beside or above it"
    assert "mfld" not in GRAPH[module] or module.startswith("mfld._core"), f"{module} imports the whole package"


def test_no_circle_among_files():
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == 1:
            raise AssertionError(" -> ".join([*path[path.index(module) :], module]))
        if module in state:
            return
        state[module] = 1
        for other in sorted(GRAPH[module]):
            visit(other, (*path, module))
        state[module] = 2

    for module in GRAPH:
        visit(module, ())


LAZY = [module for module, path in FILES.items() if "lazy.names(" in path.read_text() and module != "mfld.lazy"]


@pytest.mark.parametrize("module", LAZY)
def test_names_that_are_loaded_late_are_those_that_checkers_see(module):
    package = importlib.import_module(module)
    block = next(node for node in ast.parse(FILES[module].read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    told = {name: f"{module}.{home}" for home, names in package._HOMES.items() for name in names.split()}
    assert told == {name: home for name, home in homes.items() if home != module}
    assert {*homes, *(("__version__", "Loss", "LossFunction", "losses") if module == "mfld" else ())} == {
        *package.__all__
    }
    for name, home in homes.items():
        there = (
            importlib.import_module(f"{module}.{name}")
            if home == module
            else getattr(importlib.import_module(home), name)
        )
        assert getattr(package, name) is there
    assert set(package.__all__) <= set(dir(package))


def test_importing_the_package_loads_what_is_asked_for():
    program = """
import sys, mfld
loaded = {name[5:] for name in sys.modules if name.startswith("mfld.")}
assert loaded == {"_core", "_core._binding", "lazy", "losses", "native", "validation"}, loaded
assert not hasattr(mfld, "nothing")
assert mfld.data.Stream.__module__ == "mfld.data"  # a module without being listed
import mfld.models, mfld.losses
assert "tanh" in mfld.activations() and "squared" in mfld.losses()
assert "mfld.algorithms" not in sys.modules
assert mfld.MFLD and mfld.EmpiricalRisk
loaded = {name[5:] for name in sys.modules if name.startswith("mfld.")}
assert not loaded & {"algorithms.pda", "objectives.control", "dynamics.stein", "kernels"}, loaded
from mfld import *
assert MFLD is mfld.MFLD and "mfld.algorithms.pda" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


OPEN = {"State", "Cloud", "Schedule", "GaussianMixture"}  # kinds of values, not parts that behave differently

# The rules by which a front turns names and sizes into parts, and asks what came of them.
MAY_ASK = {
    "mfld.fitting": {"FullBatch", "Minibatch"},  # the estimators that dual averaging has a batch size for
    "mfld.experiments.recipe": {"Minibatch"},  # whose runs are to see each row a few times
}


def concrete_classes() -> set[str]:
    """Names of the classes of the library that have a parent in it: the parts."""
    parents: dict[str, set[str]] = {}
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                parents[node.name] = parents.get(node.name, set()) | bases
    return {name for name, above in parents.items() if above & parents.keys()} | {"State", "Cloud"}


PARTS = concrete_classes() - OPEN
MODULES = {name for module in FILES for name in (module, module.rpartition(".")[2])}


def classes_asked_for(source: str) -> set[str]:
    """Parts that code tells apart by their class: in isinstance, issubclass, comparisons of a type, and patterns."""
    tree = ast.parse(source)
    told = {inner for node in ast.walk(tree) if isinstance(node, ast.Assert) for inner in ast.walk(node)}
    kinds: list[ast.expr] = []
    for node in ast.walk(tree):
        if node in told:  # to the type checker, behind a check
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            kinds.append(node.args[1])
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            of_types = [isinstance(side, ast.Call) and getattr(side.func, "id", "") == "type" for side in sides]
            kinds += sides if any(of_types) or any(getattr(side, "attr", "") == "__class__" for side in sides) else []
        elif isinstance(node, ast.MatchClass):
            kinds.append(node.cls)
    inner = [part for kind in kinds for part in ast.walk(kind)]
    names = {part.id for part in inner if isinstance(part, ast.Name)}
    # In a module of the library: other libraries have classes of these names.
    names |= {part.attr for part in inner if isinstance(part, ast.Attribute) and ast.unparse(part.value) in MODULES}
    return PARTS & names


@pytest.mark.parametrize("module", FILES)
def test_no_part_asks_for_the_class_of_another(module):
    asked = classes_asked_for(FILES[module].read_text(encoding="utf-8"))
    assert asked == MAY_ASK.get(module, set()), f"{module} asks for concrete classes: {sorted(asked)}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("isinstance(x, MFLD)", {"MFLD"}),
        ("[isinstance(x, (PSDCA, mfld.Minibatch, Algorithm))]", {"PSDCA", "Minibatch"}),
        ("issubclass(x, Overdamped | Cloud)", {"Overdamped"}),
        ("type(x) is TwoLayerNetwork or type(x) in (PDA, int)", {"TwoLayerNetwork", "PDA"}),
        ("EmpiricalRisk == type(x)", {"EmpiricalRisk"}),
        ("x.__class__ is FullBatch", {"FullBatch"}),
        ("match x:\n  case Loss(): pass\n  case mfld.SVRG(): pass", {"Loss", "SVRG"}),
        ("isinstance(x, schedules.Constant) or isinstance(x, ast.Constant)", {"Constant"}),
        ("isinstance(x, ast.Constant)", set()),
        ("assert isinstance(x, MFLD)", set()),
        ("isinstance(x, Objective) or isinstance(x, Cloud) or MFLD is x", set()),
    ],
)
def test_questions_for_a_class_are_seen(code, expected):
    assert classes_asked_for(code) == expected


@pytest.mark.parametrize(
    "part",
    [
        *(mfld.FullBatch, mfld.Minibatch, mfld.SVRG, mfld.SARAH, mfld.Overdamped, mfld.Underdamped),
        *(mfld.TwoLayerNetwork, mfld.Loss, mfld.EmpiricalRisk),
    ],
)
def test_parts_that_the_core_computes_have_no_subclasses(part):
    with pytest.raises(TypeError, match=f"Own must not be a subclass of {part.__name__}, which the compiled core"):
        type("Own", (part,), {})


def test_docstrings_begin_with_the_noun():
    found = [
        f"{module}: {text.splitlines()[0]}"
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
        if text.startswith(("What ", "Where ", "Whether "))
    ]
    assert not found


def readings_of_the_wall_clock(source: str) -> list[str]:
    read = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.strftime"}
    names = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Attribute, ast.Name))]
    return [name for name in names if name in read or name.endswith((".now", ".utcnow", ".today", ".st_mtime"))]


def test_nothing_goes_by_a_clock_that_is_set():
    # Time that runs on whatever an administrator or a time server does: limits, saves, locks and progress ask for it.
    found = {str(path): readings_of_the_wall_clock(path.read_text()) for path in ROOT.rglob("*.py")}
    assert len(found) > 200
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("code", ["time.time()", "datetime.datetime.now()", "path.stat().st_mtime > 3"])
def test_readings_of_the_wall_clock_are_seen(code):
    assert readings_of_the_wall_clock(code)
    assert not readings_of_the_wall_clock("time.monotonic() - time.perf_counter()")
