import numpy as np
import pytest
from scipy import stats

from roadcast.flow.trend import trend


def test_textbook_example():
    # Worked by hand: slope 0.6, residual sum of squares 2.4, standard error 0.2828, t(3, 0.975) = 3.1824.
    found = trend([1, 2, 3, 4, 5], [2, 4, 5, 4, 5])
    assert found is not None
    assert found.slope == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(-0.3001, abs=1e-4), pytest.approx(1.5001, abs=1e-4))


def test_agrees_with_an_independent_regression():
    random = np.random.default_rng(5)
    x = random.uniform(0, 30, 40)
    y = 50 - 0.3 * x + random.normal(0, 2, 40)
    found, oracle = trend(x.tolist(), y.tolist()), stats.linregress(x, y)
    assert found is not None
    reach = stats.t.ppf(0.975, 38) * oracle.stderr
    assert found.slope == pytest.approx(oracle.slope)
    assert found.high - found.slope == pytest.approx(reach)
    assert found.slope - found.low == pytest.approx(reach)


def test_a_perfect_line_has_no_doubt():
    found = trend([0, 1, 2, 3], [1, 3, 5, 7])
    assert found is not None
    assert found.low == pytest.approx(2)
    assert found.high == pytest.approx(2)


@pytest.mark.parametrize("x", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_too_little_says_nothing(x: list[float]):
    assert trend(x, x) is None
