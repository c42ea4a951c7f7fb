"""What features say of data that nobody has labelled: how many directions they move in, and whether they fall into groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

MOST = 1000  # cases that are grouped: silhouettes compare every pair
GROUPS = range(2, 11)
COMPONENTS = 32  # principal components that groups are sought in: distances in hundreds of dimensions all look alike
LOOSE, CLEAR = 0.10, 0.25  # silhouettes: Kaufman & Rousseeuw 1990 call up to .25 no substantial structure; below .10 blobs of noise reach as much


@dataclass(frozen=True)
class Structure:
    """Of features (n, d): ``directions``, their participation ratio, 1..d; ``groups``, the number of k-means groups with the largest ``silhouette``, -1..1."""

    n: int
    directions: float
    groups: int
    silhouette: float

    def in_words(self, things: str, source: str) -> str:
        """Return one sentence for people.

        >>> Structure(300, 12.3, 4, 0.31).in_words("images", "net")
        'To net the 300 images vary in about 12 directions and fall into 4 clear groups (silhouette 0.31); whether these are your classes only labels can say.'
        """
        how = "clear" if self.silhouette >= CLEAR else "loose" if self.silhouette >= LOOSE else ""
        found = f"fall into {self.groups} {how} groups" if how else "fall into no groups"
        end = "; whether these are your classes only labels can say" if how else ""
        return f"To {source} the {self.n} {things} vary in about {self.directions:.0f} directions and {found} (silhouette {self.silhouette:.2f}){end}."


def structure(x: np.ndarray, *, seed: int) -> Structure:
    """Return the structure of features x (n, d), n >= 3.

    Directions are counted by the participation ratio of the covariance's eigenvalues, (sum s)^2 / sum s^2 (Gao et al. 2017). Groups are sought by k-means
    in the first 32 principal components, of at most 1,000 cases, and are as many as give the largest mean silhouette (Rousseeuw 1987).

    >>> corners = np.array([[0.0, 0], [0, 1], [9, 0], [9, 1]] * 5)
    >>> found = structure(corners, seed=0)
    >>> found.groups, round(found.directions, 2)  # variances 20.25 and 0.25: 20.5^2 / (20.25^2 + 0.25^2)
    (4, 1.02)
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    z = np.asarray(x, dtype=np.float64) - np.mean(x, axis=0, dtype=np.float64)
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    values, vectors = eigh(gram)
    values = np.maximum(values, 0.0)
    directions = float(values.sum() ** 2 / max(float(np.sum(values**2)), np.finfo(float).tiny))
    top = vectors[:, ::-1][:, :COMPONENTS]
    scores = top * np.sqrt(values[::-1][:COMPONENTS]) if len(z) < z.shape[1] else z @ top
    rows = scores if len(z) <= MOST else scores[np.random.default_rng(seed).choice(len(z), MOST, replace=False)]
    different = len(np.unique(rows, axis=0))
    found = []
    for k in (k for k in GROUPS if k < min(len(rows), different + 1)):
        groups = KMeans(k, n_init=3, random_state=seed).fit_predict(rows)
        if 1 < len(np.unique(groups)) < len(rows):
            found.append((float(silhouette_score(rows, groups)), -k))
    best, k = max(found, default=(0.0, -1))
    return Structure(len(z), directions, -k, best)
