"""Differential privacy: noise and what it costs, private mean embeddings, and the accounts of noisy training.

`mechanism` calibrates Gaussian noise and draws it without leaks; `embedding` releases the mean features of a table,
from which `mfld.FeatureMatching` makes particles, and with them rows; `accountant` counts what clipped gradients and
the noise of Langevin dynamics cost.
"""

from mfld.privacy.accountant import last_iterate, sampled_gaussian, secret_seed, training_epsilon, training_multiplier
from mfld.privacy.domains import private_bounds, private_categories
from mfld.privacy.embedding import PrivateEmbedding, table_features
from mfld.privacy.mechanism import (
    NEIGHBOURS,
    Expense,
    GaussianMechanism,
    Ledger,
    PrivacyWarning,
    discrete_gaussian,
    gaussian_delta,
    gaussian_epsilon,
    generator,
    noise_multiplier,
    together,
)

__all__ = [
    "NEIGHBOURS",
    "Expense",
    "GaussianMechanism",
    "Ledger",
    "PrivacyWarning",
    "PrivateEmbedding",
    "discrete_gaussian",
    "gaussian_delta",
    "gaussian_epsilon",
    "generator",
    "last_iterate",
    "noise_multiplier",
    "private_bounds",
    "private_categories",
    "sampled_gaussian",
    "secret_seed",
    "table_features",
    "together",
    "training_epsilon",
    "training_multiplier",
]
