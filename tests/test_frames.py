"""Data frames in the estimators: what is no number is refused by the name of its column, with advice."""

import datetime

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
sklearn = pytest.importorskip("mfld.sklearn")
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder  # noqa: E402

N = 40
AGE = np.linspace(20.0, 60.0, N)
Y = AGE / 20


def frame(**columns):
    return pd.DataFrame({"age": AGE, **columns})


def with_gap(gap, dtype=None):
    values = list(range(N))
    values[3] = gap
    return pd.Series(values, dtype=dtype)


COLOURS = ["red", "blue"] * (N // 2)
REFUSED = {
    "texts": (COLOURS, r"X, column 'odd', row 0: must be a number, got a text, 'red': .*OneHotEncoder"),
    "categories": (pd.Categorical(COLOURS), r"X, column 'odd', row 0: must be a number, got a text, 'red'"),
    "texts below numbers": ([1.5] * 9 + ["n/a"] * (N - 9), r"X, column 'odd', row 9: must be .* got a text, 'n/a'"),
    "dates": (pd.date_range("2024-01-01", periods=N), r"X, column 'odd' has dates or times: make numbers of them"),
    "durations": (pd.to_timedelta(np.arange(N), "h"), r"X, column 'odd' has dates or times"),
    "dates of Python": ([datetime.date(2024, 1, 1)] * N, r"X, column 'odd', row 0: must be a number, got a date"),
    "missing": (with_gap(np.nan), r"X, column 'odd', row 3: the value is missing \(NaN\): .*SimpleImputer"),
    "None": (with_gap(None), r"X, column 'odd', row 3: the value is missing"),
    "NA": (with_gap(pd.NA, "Int64"), r"X, column 'odd', row 3: the value is missing"),
    "infinite": (with_gap(np.inf), r"X, column 'odd', row 3: must be finite, got inf"),
}


@pytest.mark.parametrize(("odd", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_number_is_refused_by_column(odd, message):
    regressor = sklearn.MeanFieldRegressor(n_steps=5, random_state=0)
    with pytest.raises(ValueError, match=message):
        regressor.fit(frame(odd=odd), Y)
    with pytest.raises(ValueError, match=message):
        sklearn.MeanFieldClassifier(n_steps=5).fit(frame(odd=odd), Y > 2)
    regressor.fit(frame(odd=np.arange(N)), Y)
    with pytest.raises(ValueError, match=message):
        regressor.predict(frame(odd=odd))
    assert regressor.predict(frame(odd=np.arange(N))).shape == (N,)


@pytest.mark.parametrize("dtype", [bool, int, "Int64", "Float32", object])
@pytest.mark.filterwarnings("ignore:the loss of the network")
def test_numbers_in_any_type_are_taken(dtype):
    odd = pd.Series(np.arange(N) % 5).astype(dtype)
    fitted = sklearn.MeanFieldRegressor(n_steps=5, random_state=0).fit(frame(odd=odd), Y)
    as_array = sklearn.MeanFieldRegressor(n_steps=5, random_state=0).fit(np.column_stack([AGE, odd]).astype(float), Y)
    assert np.array_equal(fitted.cloud_.particles, as_array.cloud_.particles)
    assert fitted.feature_names_in_.tolist() == ["age", "odd"]


def test_the_advice_helps():
    columns = make_column_transformer((OneHotEncoder(), ["odd"]), remainder="passthrough")
    model = make_pipeline(columns, sklearn.MeanFieldRegressor(random_state=0))
    assert model.fit(frame(odd=COLOURS), Y).score(frame(odd=COLOURS), Y) > 0.9
