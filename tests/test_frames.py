"""What is no number is refused by the estimators by name, with advice; in data frames by that of its column."""

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


ROWS = np.column_stack([AGE, np.sin(AGE)])
DAYS = np.arange(N).astype("datetime64[D]")
ODD = {
    "dates": ({"X": ROWS.astype("datetime64[s]")}, ValueError, "X has dates or times: make numbers of them"),
    "durations": ({"X": ROWS.astype("timedelta64[s]")}, ValueError, "X has dates or times"),
    "dates to predict": ({"y": DAYS}, ValueError, "y has dates or times"),
    "dates with a zone": ({"y": pd.Series(DAYS).dt.tz_localize("UTC")}, ValueError, "y has dates or times"),
    "a generator": ({"X": (row for row in ROWS)}, TypeError, "X must be an array, .*, got generator"),
    "a set": ({"y": {1.0, 2.0}}, TypeError, "y must be an array, .*, got set"),
    "a mapping": ({"X": {"age": AGE}}, TypeError, "X must be an array, .*, got dict"),
    "a text": ({"sample_weight": "balanced"}, TypeError, "sample_weight must be an array, .*, got str"),
    "bytes": ({"X": b"abc"}, TypeError, "X must be an array, .*, got bytes"),
    "huge": ({"X": ROWS * [1, 1e200]}, ValueError, r"X, column 1 reaches 9.*e\+199 .*: these must be below 1e\+100"),
    "tiny": ({"X": ROWS * [1e-200, 1]}, ValueError, "X, column 0 reaches 6e-199 and spreads over 4e-199"),
    "subnormal": ({"X": ROWS * [1e-310, 1]}, ValueError, "X, column 0 reaches"),
    "huge targets": ({"y": Y * 1e150}, ValueError, "y reaches"),
    "tiny targets": ({"y": np.column_stack([Y, Y * 1e-150])}, ValueError, "y, column 1 reaches"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_what_is_no_table_of_numbers_is_refused_by_name(name):
    given, error, message = ODD[name]
    with pytest.raises(error, match=message):
        sklearn.MeanFieldRegressor(n_steps=2, n_particles=4).fit(**{"X": ROWS, "y": Y, **given})


def test_dates_are_refused_in_prediction_too():
    fit = sklearn.MeanFieldRegressor(n_steps=2, n_particles=4, random_state=0).fit(ROWS, Y)
    with pytest.raises(ValueError, match="X has dates or times"):
        fit.predict(ROWS.astype("datetime64[s]"))


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("of", [list, lambda labels: np.array(labels, object), pd.Series])
def test_labels_that_are_missing_are_refused_with_their_row(gap, of):
    labels = [*COLOURS[:7], gap, *COLOURS[8:]]
    with pytest.raises(ValueError, match="y, row 7: the label is missing"):
        sklearn.MeanFieldClassifier(n_steps=2, n_particles=4).fit(ROWS, of(labels))


@pytest.mark.parametrize("factor", [1e-320, 1e-200, 1e200, 1e308])
@pytest.mark.filterwarnings("error")
def test_weights_count_by_their_shares_whatever_their_size(factor):
    weights = np.linspace(0.25, 1, N)
    fits = [
        sklearn.MeanFieldRegressor(n_steps=20, n_particles=20, random_state=0).fit(ROWS, Y, sample_weight=each)
        for each in (weights, weights * factor)
    ]
    np.testing.assert_allclose(*(fit.predict(ROWS) for fit in fits), rtol=1e-3)


@pytest.mark.parametrize("kind", ["MeanFieldRegressor", "MeanFieldClassifier"])
def test_masked_values_are_refused_by_scores(kind):
    labels = (Y.mean() < Y).astype(int)
    fit = getattr(sklearn, kind)(n_steps=2, n_particles=4, random_state=0).fit(ROWS, labels)
    mask = np.arange(N) == 3
    with pytest.raises(ValueError, match="y must have no masked values"):
        fit.score(ROWS, np.ma.masked_array(labels, mask))
    with pytest.raises(ValueError, match="sample_weight must have no masked values"):
        fit.score(ROWS, labels, np.ma.masked_array(np.ones(N), mask))
