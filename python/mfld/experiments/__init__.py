"""The main job: a data set, a recipe that trains on it, and the model file that comes out."""

from mfld.experiments.convert import Stored, convert
from mfld.experiments.datasets import Dataset, bundled, load, load_like
from mfld.experiments.densities import DensityModel
from mfld.experiments.encoding import Encoding
from mfld.experiments.generators import GeneratorModel
from mfld.experiments.recipe import Recipe, train
from mfld.experiments.synthesis import SyntheticTable
from mfld.experiments.teacher_student import TeacherStudent, teacher_student
from mfld.experiments.trained import Scores, TrainedModel

__all__ = [
    "Dataset",
    "DensityModel",
    "Encoding",
    "GeneratorModel",
    "Recipe",
    "Scores",
    "Stored",
    "SyntheticTable",
    "TeacherStudent",
    "TrainedModel",
    "bundled",
    "convert",
    "load",
    "load_like",
    "teacher_student",
    "train",
]
