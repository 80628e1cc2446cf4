"""Losses, covariances and schedules as they are written in options and files: ``huber:1.5``, ``geometric:0.5:250``."""

from __future__ import annotations

import math
from collections.abc import Callable

from mfld import schedules
from mfld.experiments import curves
from mfld.functional_data import RBF, Covariance, Matern, PowerLaw, PrincipalComponents
from mfld.losses import Loss
from mfld.schedules import Schedule


def loss(text: str) -> Loss:
    """A loss from NAME or NAME:PARAMETER."""
    name, _, parameter = text.partition(":")
    loss = Loss(name)
    if not parameter:
        return loss
    if loss.parameter_name is None:
        raise ValueError(f"{name} has no parameter, got {text!r}")
    try:
        value = float(parameter)
    except ValueError:
        raise ValueError(f"must be {name}:{loss.parameter_name.upper()} with a number, got {text!r}") from None
    return Loss(name, **{loss.parameter_name: value})


_COVARIANCES: dict[str, tuple[str, Callable[[float], Covariance]]] = {
    "components": ("components:EXPONENT", lambda q: PowerLaw(q, basis=PrincipalComponents(whitened=True))),
    "power": ("power:EXPONENT", PowerLaw),
    "rbf": ("rbf:LENGTH", RBF),
    "matern": ("matern:LENGTH", Matern),
}


def covariance(text: str) -> Covariance:
    """A covariance from the syntax that the help explains; "components" alone is the default one."""
    name, _, parameter = text.partition(":")
    if name not in _COVARIANCES:
        raise ValueError(f"must be one of {', '.join(_COVARIANCES)}; got {text!r}")
    if text == "components":
        return curves.DEFAULT
    form, make = _COVARIANCES[name]
    try:
        value = float(parameter)
    except ValueError:
        raise ValueError(f"must be {form} with a number, got {text!r}") from None
    return make(value)


_SCHEDULES: dict[str, tuple[str, tuple[type, ...], Callable[..., Schedule]]] = {
    "geometric": ("geometric:FACTOR:STAGE_LENGTH", (float, int), lambda f, n: schedules.Geometric(1.0, f, n)),
    "power": ("power:EXPONENT", (float,), lambda q: schedules.Power(1.0, q)),
    "log": ("log", (), lambda: schedules.Logarithmic(math.log(2))),
    "off": ("off:STEP", (int,), lambda step: schedules.SwitchOff(1.0, step)),
}


def schedule(text: str) -> Schedule:
    """A schedule from the syntax that the help explains."""
    product: Schedule | None = None
    for factor in text.split("*"):
        name, *parts = factor.strip().split(":")
        if name not in _SCHEDULES:
            raise ValueError(f"must be made of {', '.join(_SCHEDULES)}; got {text!r}")
        form, kinds, make = _SCHEDULES[name]
        try:
            numbers = [kind(part) for kind, part in zip(kinds, parts, strict=True)]
        except ValueError:
            raise ValueError(f"must be {form} with numbers, got {text!r}") from None
        try:
            schedule = make(*numbers)
        except ValueError as error:
            raise ValueError(f"{error} (in {text!r})") from None
        product = schedule if product is None else product * schedule
    assert product is not None  # split gives one part at least
    return product
