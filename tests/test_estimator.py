"""TransferClassifier as a scikit-learn estimator, on paths and on arrays of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

import headstart as hs

# why: scikit-learn generates its data as (n, d) tables. An estimator of images declares two_d_array=False, and for such an estimator
# scikit-learn itself yields none of the checks that need a table: those on dtypes, NaN, sparse input, n_features_in_, one sample or feature,
# subset invariance, pickling after fit. The list below are its checks that need no data; the tests below repeat on images what it asks on tables.


WITHOUT_DATA = [
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_mixin_order,
]


def pictures(n: int = 16, *, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(n) % 2
    return generator.normal(80 + 90 * y[:, None, None, None], 40, (n, size, size, 3)).clip(0, 255).astype(np.uint8), np.array(["dark", "light"])[y]


def classifier(**params: object) -> hs.TransferClassifier:
    return hs.TransferClassifier(source="squeezenet", **params)


@pytest.mark.filterwarnings("ignore:Can't test estimator:UserWarning")  # what scikit-learn says of every estimator that takes no tables
def test_the_checks_that_apply_to_image_input_pass() -> None:
    for estimator, check in estimator_checks_generator(classifier()):
        check(estimator)
    for check in WITHOUT_DATA:
        check("TransferClassifier", classifier())


def test_it_learns_and_gives_probabilities_in_the_order_of_its_classes() -> None:
    x, y = pictures()
    fitted = classifier().fit(x[:12], y[:12])
    proba = fitted.predict_proba(x[12:])
    assert fitted.classes_.tolist() == ["dark", "light"]
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (fitted.predict(x[12:]) == y[12:]).all()


def test_paths_and_arrays_give_the_same(tmp_path: Path) -> None:
    x, y = pictures()
    paths = [tmp_path / f"{i}.png" for i in range(len(x))]
    for path, pixels in zip(paths, x, strict=True):
        Image.fromarray(pixels).save(path)
    one, two = classifier().fit(x, y), classifier().fit([str(p) for p in paths], y)
    np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(np.array([str(p) for p in paths])), atol=1e-9)


def test_it_works_in_a_pipeline_in_cross_validation_and_in_a_grid_search() -> None:
    x, y = pictures()
    assert cross_val_score(Pipeline([("transfer", classifier())]), x, y, cv=2, error_score="raise").mean() > 0.7
    found = GridSearchCV(classifier(), {"back": [0, 2], "head": ["ridge", "knn"]}, cv=2, error_score="raise").fit(x, y)
    assert set(found.best_params_) == {"back", "head"}


def test_clones_are_unfitted_and_fitting_twice_changes_nothing() -> None:
    x, y = pictures()
    one = classifier(back=1).fit(x, y)
    other = clone(one)
    assert other.get_params() == one.get_params()
    with pytest.raises(NotFittedError):
        other.predict(x)
    first = one.predict_proba(x)
    np.testing.assert_array_equal(one.fit(x, y).predict_proba(x), first)


def test_the_order_of_images_and_their_company_do_not_matter() -> None:
    x, y = pictures()
    fitted = classifier().fit(x, y)
    whole = fitted.predict_proba(x)
    np.testing.assert_allclose(fitted.predict_proba(x[::-1])[::-1], whole, atol=1e-9)
    np.testing.assert_allclose(np.vstack([fitted.predict_proba(x[i : i + 1]) for i in range(3)]), whole[:3], atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 9)), [0, 1, 0, 1], r"X has shape \(4, 9\); images are \(n, h, w, c\)"),
        (np.zeros((4, 9, 9, 3)), [0, 1], "X holds 4 images but y 2 labels"),
        ([], [], "X holds no images"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(x: object, y: list[int], message: str) -> None:
    with pytest.raises(hs.InputError, match=message):
        classifier().fit(x, y)


def test_an_unknown_source_is_answered_with_the_nearest_name() -> None:
    x, y = pictures(4)
    with pytest.raises(hs.InputError, match="squeezenet"):
        hs.TransferClassifier(source="squeezent").fit(x, y)
