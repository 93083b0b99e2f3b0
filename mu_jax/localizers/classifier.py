"""What a probe fits: multinomial logistic regression on standardised features."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any


def classifier(penalty: float) -> Any:
    """An unfitted scikit-learn pipeline; `penalty` is the inverse strength of L2."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=200))


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Fits inside run on one thread, and say nothing where they stop early.

    One thread: XLA's own pool fights with that of BLAS, ten times slower.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
