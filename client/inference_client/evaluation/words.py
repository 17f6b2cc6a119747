"""Figures in words, as the page and the terminal say them."""

from inference_client.evaluation.figures import CLUSTERING, Figures, Share, ThresholdInForce, Unmatched
from inference_client.evaluation.thresholds import Trial

FEW_IMAGES = 100
FEW_UNMATCHED = 10
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
    choice = figures.choice
    if choice is None:
        return [f"No threshold is recommended: {figures.no_choice}."]
    of = figures.classified
    trial = choice.trial
    lowest, highest = min(choice.fold_choices), max(choice.fold_choices)
    spread = f"{lowest:.2f}" if lowest == highest else f"{lowest:.2f} to {highest:.2f}"
    sentences = [
        f"Take -thres {choice.threshold:.2f}.",
        f"There, something matches {trial.matched:,} of {count(of, 'image')}, and "
        f"{trial.matched_right:,} of these are answered right.",
        f"Counted as right is an image that is answered right with at least one match, or, if the server does not know "
        f"its class, one that nothing matches: {trial.right_with_unknown:,}.",
        f"It is the middle of {choice.low:.2f} to {choice.high:.2f}, where the number that counts as right is within "
        f"one standard error, {count(choice.tolerance_images, 'image')}, of the best.",
        f"That is measured on the images that it was chosen by. Chosen by four fifths of them and measured on the "
        f"fifth that was left out, in turn, the threshold was {spread}, and {choice.held_out_right:,} of {of:,} "
        f"({percent(choice.held_out_right / of)}) counted as right: expect that of new images.",
    ]
    now = _trial_in_force(figures)
    if now is not None:
        sentences.append(
            f"At the threshold in force {now.right_with_unknown:,} count as right, and {now.right:,} answers are right "
            f"in all, against {trial.right:,}: {_advice(trial, now, choice.tolerance_images)}."
        )
    if of < FEW_IMAGES:
        sentences.append(f"{count(of, 'image')} are few: evaluate again with more before much depends on it.")
    return sentences


def _advice(recommended: Trial, now: Trial, tolerance: int) -> str:
    if recommended.right_with_unknown - now.right_with_unknown <= tolerance:
        return "there is no need to change it"
    if recommended.right - now.right > tolerance:
        return "a change is worth making"
    return "a change pays where answers without a match are not taken, as with an unknown_label"


def _trial_in_force(figures: Figures) -> Trial | None:
    threshold, trials = figures.threshold, figures.trials
    if threshold is None or not trials:
        return None
    low = high = threshold.given
    if low is None or high is None:
        low, high = threshold.above, threshold.below
    # Beyond the first and last trial nothing changes.
    if low is not None and low >= trials[-1].threshold:
        return trials[-1]
    if high is not None and high <= trials[0].threshold:
        return trials[0]
    if low is None or high is None:
        return None
    found = [each for each in trials if low < each.threshold < high or each.threshold == threshold.given]
    return found[len(found) // 2] if found else None


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
    found = []
    if not figures.classified:
        return [f"None of {count(figures.images, 'image')} was classified, so that no figure is defined."]
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
    if len(figures.confusion.truths) == 1:
        found.append("All classified images are of one class, so nothing is said about telling classes apart.")
    if figures.classified < FEW_IMAGES:
        found.append(
            f"{count(figures.classified, 'image')} are a small sample: look at the interval, not only at the figure."
        )
    return found
