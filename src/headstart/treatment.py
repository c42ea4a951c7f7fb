"""How images were made: sizes, colours, brightness and negatives that do not go together, or not with what a network was trained on.

Whatever a scanner or an export did to some images and not to others is a pattern that a network learns instead of the class.
"""

from __future__ import annotations

import numpy as np

from headstart.core import Task
from headstart.findings import Finding, finding

SMALL = 64  # pixels of the shorter side; a network trained at 224 sees such an image blown up 3.5 times
MIXED_SIZES = 4.0  # longest median side of a tenth over that of another tenth
FEW, MANY = 0.02, 0.98  # shares between which images are told to be of two kinds
DARK = 0.15  # of the range of brightness: a 12-bit image in a 16-bit file fills a sixteenth of it
OPPOSITE = -0.5  # correlation with the typical image from which an image is taken for a negative
TYPICAL = 0.5  # median correlation of the others with it, below which no image is typical and none is a negative
PHOTOGRAPH = (0.449, 0.226)  # mean and deviation of ImageNet's channels, which the packaged networks were trained on
FAR = 1.5  # such deviations
TWICE = 2.0  # median side in one set over that in the other


def treatment(task: Task, squares: np.ndarray) -> list[Finding]:
    """Return what does not go together in a set of images; ``squares`` (n, 3 side^2), 0..1, are its first images, squeezed."""
    return [*_frames(task), *_brightness(squares), *_negatives(squares)]


def treated_otherwise(task: Task, other: Task, squares: np.ndarray, others: np.ndarray) -> list[Finding]:
    """Return in what the ``other`` images, which will be predicted, were made otherwise than those that are trained on."""
    from headstart.modality.image import frames

    seen, theirs = frames(task.target.x), frames(other.target.x)
    side, side_there = (float(np.median([min(f.width, f.height) for f in some])) for some in (seen, theirs))
    grey, grey_there = (float(np.mean([f.is_grey for f in some])) for some in (seen, theirs))
    full, full_there = (float(np.median(some.max(axis=1))) for some in (squares, others))
    says = []
    if max(side, side_there) >= TWICE * min(side, side_there):
        says.append(f"their shorter side is {side_there:.0f} pixels, and {side:.0f} in training")
    if abs(grey - grey_there) > 0.5:
        says.append(f"{grey_there:.0%} of them are grey, and {grey:.0%} in training")
    if min(full, full_there) < DARK < max(full, full_there) / TWICE:
        says.append(f"they fill {full_there:.0%} of the range of brightness, and {full:.0%} in training: was the bit depth read right?")
    if (alike := _likeness(squares, others)) is not None and alike < OPPOSITE:
        says.append("they look like negatives of the training images")
    if not says:
        return []
    what = f"What will be predicted was made otherwise: {'; '.join(says)}"
    return [finding("preprocessing mismatch", what, (), len(other.target), f"{len(theirs)} looked at", "Make both alike before anything is predicted.")]


def _frames(task: Task) -> list[Finding]:
    """Sizes and colours that do not go together, or that give the class away."""
    from headstart.modality.image import frames

    seen = frames(task.target.x)
    sides, grey = np.array([min(f.width, f.height) for f in seen]), np.array([f.is_grey for f in seen])
    found = []
    if 0.02 < grey.mean() < 0.98:
        what = f"{grey.mean():.0%} of the images are grey, the others in colour"
        found.append(finding("mixed colours", what, (), int(grey.sum()), f"{len(seen)} looked at", "Make them alike, if colour says how they were taken."))
    low, high = np.quantile(sides, [0.05, 0.95])
    if high >= MIXED_SIZES * low:
        what = f"The shorter side is {low:.0f} pixels in some images and {high:.0f} in others"
        found.append(finding("mixed sizes", what, (), len(seen), f"{len(seen)} looked at", "Check that sizes do not tell the class or the device."))
    if np.median(sides) < SMALL:
        what = f"The images are small, {np.median(sides):.0f} pixels in the median"
        found.append(
            finding(
                "small images", what, (), len(seen), f"{len(seen)} looked at", "Networks trained at 224 pixels see them blown up; use larger ones if there are."
            )
        )
    return found


def _brightness(squares: np.ndarray) -> list[Finding]:
    """Images that fill little of the range of brightness, and sets that lie far from photographs."""
    dark, mean = squares.max(axis=1) < DARK, float(squares.mean())
    share, looked = float(dark.mean()), f"{len(squares)} looked at"
    do = "Stretch them to the whole range: a 12-bit image in a 16-bit file looks so."
    if share > MANY:
        what = f"The images fill no more than {float(squares.max()):.0%} of the range of brightness"
        return [finding("dark images", what, (), int(dark.sum()), looked, do)]
    if share > FEW:
        what = f"{share:.0%} of the images fill less than {DARK:.0%} of the range of brightness, the others more"
        return [finding("mixed depths", what, (), int(dark.sum()), looked, do)]
    if abs(mean - PHOTOGRAPH[0]) > FAR * PHOTOGRAPH[1]:
        much = "brighter" if mean > PHOTOGRAPH[0] else "darker"
        what = f"The images are far {much} than the photographs that networks were trained on: their mean is {mean:.2f}, that of ImageNet {PHOTOGRAPH[0]:.2f}"
        return [finding("unlike photographs", what, (), len(squares), looked, "Networks may see little in them; try them stretched, or as negatives.")]
    return []


def _negatives(squares: np.ndarray) -> list[Finding]:
    """Images that look like negatives of the others: as some radiographs show bone in black."""
    shown = _standardised(squares)
    typical = np.median(shown, axis=0)
    size = float(np.linalg.norm(typical))
    if size == 0:
        return []
    likeness = shown @ typical / (size * np.sqrt(shown.shape[1]))
    share = float(np.mean(likeness < OPPOSITE))
    if not FEW < share < 0.5 or float(np.median(likeness[likeness >= OPPOSITE])) < TYPICAL:
        return []
    what = f"{share:.0%} of the images look like negatives of the others"
    return [finding("inverted images", what, (), int(np.sum(likeness < OPPOSITE)), f"{len(squares)} looked at", "Turn them: 255 less each value.")]


def _likeness(squares: np.ndarray, others: np.ndarray) -> float | None:
    """Return the correlation of the typical images of two sets, -1..1; ``None`` where a set has no typical image."""
    means = [_standardised(some).mean(axis=0) for some in (squares, others)]
    sizes = [float(np.sqrt(np.mean(m**2))) for m in means]  # 1 where all images of a set are alike, about 1/sqrt(n) where they share nothing
    return float(np.mean(means[0] * means[1]) / (sizes[0] * sizes[1])) if min(sizes) > TYPICAL else None


def _standardised(squares: np.ndarray) -> np.ndarray:
    grey = np.asarray(squares, dtype=np.float64).reshape(len(squares), -1, 3).mean(axis=2)
    grey -= grey.mean(axis=1, keepdims=True)
    spread = grey.std(axis=1, keepdims=True)
    shown: np.ndarray = np.divide(grey, spread, out=np.zeros_like(grey), where=spread > 1e-3)
    return shown
