"""Figures in words, as the page and the terminal say them."""

from collections.abc import Sequence

from inference_evaluation.figures import (
    CLUSTERING,
    NEAR_COPY,
    Figures,
    InBaseSet,
    ThresholdInForce,
    Unmatched,
)
from inference_evaluation.shares import Share
from inference_evaluation.thresholds import LOWEST_OFFERED, ThresholdChoice

FEW_IMAGES = 100
FEW_UNMATCHED = 10
SHOWN_NAMES = 3
SHOWN_REASONS = 3
NOT_DEFINED = "not defined"


def percent(share: float | None) -> str:
    """Write a share in percent.

    >>> percent(0.98333).split(), percent(1.0).split(), percent(None)
    (['98.3', '%'], ['100', '%'], 'not defined')
    """
    if share is None:
        return NOT_DEFINED
    # Not 100 % where something is missing, nor 0 % where there is something.
    rounded = min(99.9, round(100 * share, 1)) if share < 1 else 100
    if share > 0:
        rounded = max(0.1, rounded)
    return f"{rounded:.{0 if rounded in {0, 100} else 1}f}\N{NO-BREAK SPACE}%"


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure, or that there is none.

    >>> figure(0.5), figure(None)
    ('0.500', 'not defined')
    """
    return NOT_DEFINED if value is None else f"{value:.{digits}f}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number of things.

    >>> count(1, "image"), count(1200, "image"), count(2, "class", "classes")
    ('1 image', '1,200 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def interval(share: Share) -> str:
    """Write a share's 95 % interval."""
    return f"{percent(share.low)} to {percent(share.high)}" if share.of else "no images"


def accuracy(figures: Figures) -> str:
    """Say how many answers are right."""
    share = figures.accuracy
    if not share.of:
        return f"Accuracy is not defined, since none of {count(figures.images, 'image')} was classified."
    return (
        f"{share.count:,} of {share.of:,} classified images are answered right: {percent(share.share)} "
        f"(95 % interval {interval(share)})."
    )


def threshold_in_force(threshold: ThresholdInForce | None) -> str:
    """Say which threshold the answers were given with."""
    if threshold is None:
        return "none: the answers are the network's own"
    if threshold.given is not None:
        return f"{threshold.given:g}, as --sim_thres said"
    if threshold.above is not None and threshold.below is not None:
        return f"the server's own, between {threshold.above:.2f} and {threshold.below:.2f}"
    if threshold.above is not None:
        return f"the server's own, above {threshold.above:.2f}"
    if threshold.below is not None:
        return f"the server's own, below {threshold.below:.2f}"
    return "the server's own, which its answers do not tell"


def recommendation(figures: Figures) -> list[str]:
    """Say which threshold to take, by which rule, and how far that can be trusted."""
    choice, in_force = figures.choice, figures.threshold
    if choice is None or in_force is None:
        return [f"No threshold is recommended: {figures.no_choice}."]
    now, then = in_force.outcome, choice.trial
    lowest, highest = min(choice.fold_choices), max(choice.fold_choices)
    spread = f"{lowest:.2f}" if lowest == highest else f"{lowest:.2f} to {highest:.2f}"
    sentences = [
        _headline(figures, choice, in_force),
        f"Counted as right is an image that is answered right with at least one match, or, if the server does not know "
        f"its class, one that nothing matches. In force, {now.right_with_unknown:,} of "
        f"{count(figures.classified, 'image')} count as right, and {now.right:,} answers are right in all; at "
        f"{choice.threshold:.2f}, {then.right_with_unknown:,} and {then.right:,}.",
        f"{choice.threshold:.2f} is the middle of {choice.low:.2f} to {choice.high:.2f}, where the number that counts "
        f"as right is within one standard error, {count(choice.tolerance_images, 'image')}, of the best. Thresholds "
        f"below {LOWEST_OFFERED:g}, at which what is unlike would match, are not considered.",
        f"That is measured on the images that it was chosen by. Chosen by four fifths of them and measured on the "
        f"fifth that was left out, in turn, the threshold was {spread}, and {choice.held_out.count:,} of "
        f"{choice.held_out.of:,} counted as right: {percent(choice.held_out.share)} (95 % interval "
        f"{interval(choice.held_out)}).",
    ]
    if figures.classified < FEW_IMAGES:
        sentences.append(
            f"{count(figures.classified, 'image')} are few: evaluate again with more before much depends on it."
        )
    return sentences


def _headline(figures: Figures, choice: ThresholdChoice, in_force: ThresholdInForce) -> str:
    if figures.change_advised:
        return f"Take -thres {choice.threshold:.2f} instead of {threshold_in_force(in_force)}."
    keep = f"Keep the threshold in force ({threshold_in_force(in_force)})"
    gain = choice.trial.right_with_unknown - in_force.outcome.right_with_unknown
    if gain > choice.tolerance_images:
        return (
            f"{keep} if an answer without a match is taken all the same; with an unknown_label take -thres "
            f"{choice.threshold:.2f}."
        )
    if choice.low == choice.high:
        return f"{keep}: {choice.threshold:.2f} does no better that these images could tell."
    return f"{keep}: {choice.low:.2f} to {choice.high:.2f} do as well, as far as these images tell."


def threshold_curve(figures: Figures) -> str:
    """Say where the curve over the thresholds begins, and why."""
    first = figures.trials[0].threshold
    if figures.mode != CLUSTERING or first <= -1:
        return ""
    return f"The curve begins at {first:.2f}, since no lower threshold changes anything that is shown."


def unknown_label(figures: Figures) -> list[str]:
    """Say whether ``unknown_label`` would help."""
    unmatched = figures.unmatched
    if unmatched is None:
        return ["unknown_label has no effect in classification mode, where nothing is compared with base images."]
    sentences = []
    if figures.unknown_label is not None:
        sentences.append("The server has an unknown_label already.")
    if unmatched.images:
        sentences += _withheld(unmatched)
    else:
        sentences.append(
            "At the threshold in force something matches every image, so unknown_label would change nothing here."
        )
    if unmatched.unknown_images:
        sentences.append(
            f"The server does not know the class of {count(unmatched.unknown_images, 'image')}: nothing matches "
            f"{unmatched.unknown_unmatched:,} of these, so that unknown_label catches "
            f"{percent(unmatched.unknown_unmatched / unmatched.unknown_images)} of them."
        )
    else:
        sentences.append(
            "No image is of a class that the server does not know, so how well it tells such images apart was not "
            "measured: add a folder of images that are of none of its classes."
        )
    return sentences


def _withheld(unmatched: Unmatched) -> list[str]:
    right = unmatched.images - unmatched.wrong
    others = f"{unmatched.matched_wrong:,} of the {unmatched.matched:,} others" if unmatched.matched else "no others"
    if unmatched.wrong > right:
        verdict = "It helps"
    elif unmatched.wrong == right:
        verdict = "It makes no difference in number"
    else:
        verdict = "It costs more than it saves"
    sentences = [
        f"Nothing matches {count(unmatched.images, 'image')}; the nearest base image's class is wrong for "
        f"{unmatched.wrong:,} of these, against {others}.",
        f"{verdict}: unknown_label withholds {count(unmatched.wrong, 'wrong answer')} and "
        f"{count(right, 'right answer')}.",
    ]
    if unmatched.images < FEW_UNMATCHED:
        sentences.append("These are few images to judge by.")
    return sentences


def evidence(matches: dict[str, int], label: str, truth: str) -> str:
    """Say how many base images of each class match an image, and whether that decided.

    >>> evidence({"a": 1, "b": 1, "c": 0}, "a", "b")
    'matches: a 1, b 1; a tie, which similarity decided'
    >>> evidence({"a": 0, "b": 0}, "a", "b")
    'no match; the nearest base image decided'
    """
    if not matches:
        return ""
    most = max(matches.values())
    if not most:
        return "no match; the nearest base image decided"
    shown = [name for name in dict.fromkeys([label, truth]) if name in matches]
    others = [name for name in sorted(matches, key=lambda name: -matches[name]) if matches[name] and name not in shown]
    said = ", ".join(f"{name} {matches[name]:,}" for name in [*shown, *others[:SHOWN_NAMES]])
    if len(others) > SHOWN_NAMES:
        said += f" and {count(len(others) - SHOWN_NAMES, 'more class', 'more classes')}"
    tie = list(matches.values()).count(most) > 1
    return f"matches: {said}" + ("; a tie, which similarity decided" if tie else "")


def some(names: Sequence[str]) -> str:
    """Name the first few.

    >>> some(["a", "b"]), some(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def calibration(figures: Figures) -> str:
    """Say what the calibration error means."""
    error = figures.calibration.ece
    if error is None:
        return "Not defined, since no image was classified."
    if figures.mode == CLUSTERING:
        return (
            f"The probability that the server answers in clustering mode is a cosine similarity, and nothing makes "
            f"that a probability. Read as one, it would be off by {percent(error)} on average (ECE {error:.3f})."
        )
    return f"The probability is off by {percent(error)} on average (expected calibration error, ECE {error:.3f})."


def cautions(figures: Figures) -> list[str]:
    """Say what a reader must know before trusting the figures."""
    if not figures.classified:
        none = f"None of {count(figures.images, 'image')} was classified, so that no figure is defined."
        return [none, *_undecoded(figures)]
    found = []
    if figures.sim_thres_ignored:
        found.append("--sim_thres had no effect: in classification mode nothing is compared with base images.")
    if figures.in_base_set is not None:
        found += _in_base_set(figures, figures.in_base_set)
    if figures.unknown_classes:
        names = ", ".join(figures.unknown_classes[:5]) + (" and more" if len(figures.unknown_classes) > 5 else "")  # noqa: PLR2004
        found.append(
            f"The server does not know {'this class' if len(figures.unknown_classes) == 1 else 'these classes'}: "
            f"{names}. An image of such a class can only be right with the server's unknown label; are the folders "
            "named as the server's classes are?"
        )
        known = figures.known_accuracy
        found.append(
            f"Of the {count(known.of, 'image')} of classes that it knows, {known.count:,} are answered right"
            + (f": {percent(known.share)} ({interval(known)})." if known.of else ".")
        )
    if figures.classified < figures.images:
        found.append(
            f"{count(figures.images - figures.classified, 'image')} of {figures.images:,} could not be decoded: no "
            "figure counts them."
        )
        found += _undecoded(figures)
    if len(figures.confusion.truths) == 1:
        found.append("All classified images are of one class, so nothing is said about telling classes apart.")
    if figures.classified < FEW_IMAGES:
        found.append(
            f"{count(figures.classified, 'image')} are a small sample: look at the interval, not only at the figure."
        )
    return found


def _undecoded(figures: Figures) -> list[str]:
    reasons = list(figures.errors.items())
    found = [f"Not decoded: {some(names)}: {reason}" for reason, names in reasons[:SHOWN_REASONS]]
    if len(reasons) > SHOWN_REASONS:
        found.append(f"{count(len(reasons) - SHOWN_REASONS, 'further reason')}: see predictions.csv.")
    return found


def _in_base_set(figures: Figures, in_base_set: InBaseSet) -> list[str]:
    of = count(figures.classified, "image")
    if in_base_set.copies:
        return [
            f"{in_base_set.copies:,} of {of} are in the base set: their files are those of base images. Each finds "
            "itself, so the figures are better than those of new images. Leave them out and evaluate again."
        ]
    if in_base_set.near and in_base_set.copies is None:
        return [
            f"{in_base_set.near:,} of {of} are (nearly) in the base set, or the network can't tell them from a base "
            f"image: the nearest has a similarity of {NEAR_COPY} or more. A copy of a base image finds itself, which "
            "makes the figures better than those of new images. With -data the files are compared."
        ]
    return []
