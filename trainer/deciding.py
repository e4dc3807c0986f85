"""The decisions of a checkpoint: by the rule that is asked for, from what the checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_loader.classes import has_poor_quality
from logger.log import get_logger
from model.decision import Priors, adapt, decide, estimate_proportions
from model.ensemble import merge
from trainer.trained import Trained
from utils.errors import UserError

logger = get_logger(__name__)

# Fewer files a class than this say little of proportions.
_FEW = 20


def refuse_rule(trained: Trained, rule: str, adapt_priors: bool = False) -> None:
    """Refuse what needs the proportions of the training where a checkpoint holds none.

    Raises:
        UserError: names the checkpoint.
    """
    if trained.priors is None and (rule == "score" or adapt_priors):
        wanted = "--adapt-priors" if adapt_priors else f"--decide {rule}"
        what = f"holds no class proportions (priors) of its training, which {wanted} needs"
        hint = "take argmax; networks that train.py trains on SPRSound from now on hold them"
        raise UserError(trained.path, what, hint)


def refuse_context(path: Path, in_context: bool, priors: Priors | None) -> None:
    """Refuse networks that are to take events in their recordings' context but lack what that needs.

    Args:
        path: of the checkpoint, or of the group of runs.
        in_context: whether they are to.
        priors: of the networks, at the level that they were trained at.

    Raises:
        UserError: names the path.
    """
    if in_context and priors is None:
        what = "holds no class proportions (priors) of its training, which recording_context needs"
        raise UserError(path, what, "train it anew, or without recording_context")


def decided(trained: Trained, prob: np.ndarray, rule: str, adapt_priors: bool = False) -> np.ndarray:
    """The class of each item, ``(items,)`` int64, see `decide`.

    Args:
        prob: ``(items, classes)`` probabilities of the checkpoint's `finest_model`.
        adapt_priors: for the class proportions of these very items, as estimated from `prob`.
    """
    poor_quality = has_poor_quality(trained.classes)
    priors, merged = trained.member_priors or trained.priors, trained.finer
    if not adapt_priors:
        return decide(prob, rule, priors, poor_quality, merged)
    proportions = estimate_proportions(prob, priors)
    each = zip(trained.classes, merge(proportions[None], merged)[0], strict=True)
    logger.info("class proportions, estimated by EM: %s", ", ".join(f"{name} {share:.1%}" for name, share in each))
    if len(prob) < _FEW * len(proportions):
        logger.warning("they rest on %d items alone, and may be far off", len(prob))
    # The probabilities are then for these proportions.
    now = Priors(proportions, proportions)
    return decide(adapt(prob, priors, proportions), rule, now, poor_quality, merged)
