"""The built-in raters: Thurstone (the default, as in the paper) and Bradley-Terry.

Thin wrappers around `scoring.numerics.fitting.fit`, registered in the same way as third-party raters.
`scoring.rating` calls the project's rater.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pydantic

from labeling.plugins import Rater, register, registered
from labeling.records import ComparisonColumns, Fit
from scoring.numerics.fitting.fit import compile_kernels, fit_queries
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.fitting.votes import VoteTerms, fit_votes

if TYPE_CHECKING:
    from scoring.columns import ProjectColumns

# Near the choice of cross-validation for soft preferences: .02-.03 logits, times 5.8 for Thurstone.
DEFAULT_PRIOR_PRECISION = {"thurstone": 0.1, "bradley-terry": 0.02}


class RaterOptions(Rater.Options):
    """Options of both raters."""

    prior_precision: float | None = pydantic.Field(
        default=None,
        ge=0.0,
        le=1e6,
        title="Prior precision",
        description="Pulls strengths towards zero. Empty: chosen by cross-validation, or the model's default.",
    )
    tolerance: float = pydantic.Field(
        default=1e-8, gt=0.0, le=1e-3, title="Tolerance", description="Largest allowed gradient norm of a query."
    )
    require_connected: bool = pydantic.Field(
        default=False,
        title="Require connected graphs",
        description="Reject queries that have disconnected comparisons.",
    )
    judge_weights: Literal["equal", "anchored"] = pydantic.Field(
        default="equal",
        title="Judges' weights",
        description="anchored: weight judges by their agreement with people's answers and grades.",
    )
    position_bias: Literal["removed", "kept"] = pydantic.Field(
        default="removed",
        title="Position bias",
        description="removed: a judge's preference for the document shown first is measured and taken out of its answers.",
    )
    judges: str = pydantic.Field(
        default="",
        max_length=2000,
        title="Judges that count",
        description="Names or ids of judges, comma-separated; the scores leave out all others. Empty: all. People always count.",
    )


class MaximumLikelihoodRater(Rater):
    """Base class of the two raters; a subclass sets the model."""

    model: ClassVar[str]
    Options = RaterOptions
    options: RaterOptions

    @staticmethod
    def prepare() -> None:
        """Compile the solver in advance, so that the first fit is fast."""
        compile_kernels()

    @property
    def prior_precision(self) -> float:
        """Return the prior's precision that `rate` uses."""
        chosen = self.options.prior_precision
        return DEFAULT_PRIOR_PRECISION[self.model] if chosen is None else chosen

    def rate(self, columns: ComparisonColumns) -> Fit:
        return fit_queries(
            columns,
            model=self.model,
            prior_precision=self.prior_precision,
            tolerance=self.options.tolerance,
            require_connected=self.options.require_connected,
        )

    def rate_votes(self, columns: ComparisonColumns, terms: VoteTerms) -> Fit:
        """Like `rate`, with slope, offset and weight of each vote, for different judges."""
        return fit_votes(
            columns,
            terms,
            model=self.model,
            prior_precision=max(self.prior_precision, 1e-4),
            tolerance=self.options.tolerance,
        )


@register
class ThurstoneRater(MaximumLikelihoodRater):
    """Case V, F(d) = (1 + erf d) / 2."""

    name = "thurstone"
    label = "Thurstone (case V)"
    model = "thurstone"


@register
class BradleyTerryRater(MaximumLikelihoodRater):
    """F(d) = 1 / (1 + exp(-d))."""

    name = "bradley-terry"
    label = "Bradley-Terry"
    model = "bradley-terry"


def rate(rater: Rater, read: ProjectColumns, terms: Mapping[str, Sequence[float]]) -> Fit:
    """Fit the columns; `terms`: sharpness, position bias and weight by annotator id, see ProjectFit.

    Who has none, such as people, counts like a judge of mean sharpness without position bias.
    """
    if not terms or not isinstance(rater, MaximumLikelihoodRater):
        return rater.rate(read.columns)
    known = [terms.get(str(each), (1.0, 0.0, 1.0)) for each in read.annotator_ids.tolist()]
    own = np.array(known, dtype=np.float64).reshape(-1, 3)[read.columns.judge]
    position = np.where(read.columns.swapped, -1.0, 1.0)
    return rater.rate_votes(read.columns, VoteTerms(own[:, 0], own[:, 1] * position, own[:, 2] * read.columns.weight))


def odds_of_first(rater: str, terms: Mapping[str, Sequence[float]]) -> dict[int, float]:
    """Factors by which position biases multiply the odds of the document that was shown first, by annotator id.

    `terms` as of `rate`; only those whose bias the scores of the rater of this name leave out.
    """
    plugin = registered("rater").get(rater)
    if plugin is None or not issubclass(plugin, MaximumLikelihoodRater):
        return {}
    scale = LOGIT_SCALES[plugin.model]
    return {int(judge): math.exp(bias * scale) for judge, (_, bias, _) in terms.items() if bias}
