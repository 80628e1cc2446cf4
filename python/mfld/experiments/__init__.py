"""The main job: a bundled data set, a recipe that trains on it, and the model file that comes out."""

from mfld.experiments.datasets import Dataset, bundled, load
from mfld.experiments.recipe import Recipe, train
from mfld.experiments.trained import Scores, TrainedModel

__all__ = ["Dataset", "Recipe", "Scores", "TrainedModel", "bundled", "load", "train"]
