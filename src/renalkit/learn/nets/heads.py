"""Which last layer turns features into classes, unordered or ordered?

Shape legend: b images, n features, k classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_GAP = 1e-4
"""Two neighbouring thresholds are at least so far apart, so that every logarithm is finite."""


class OrdinalLayer(nn.Module):
    """Ordered classes from one number per image and k - 1 rising thresholds.

    P(class > j) = sigmoid(w f - t_j), one weight vector for all cuts (CORAL, Cao, Mirjalili and
    Raschka 2020). t_0 is free and each later threshold lies a softplus above the one before, so no
    class ever gets a negative probability. The result is the logarithm of each class's
    probability: its softmax is that probability, and whatever reads class logits can read it.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, n_features))
        nn.init.normal_(self.weight, std=n_features**-0.5)
        start = torch.zeros(n_classes - 1)
        # Cuts one apart, around 0.
        start[0] = -(n_classes - 2) / 2
        start[1:] = torch.tensor(1.0 - MIN_GAP).expm1().log()
        self.cuts = nn.Parameter(start)

    def gaps(self) -> Tensor:
        """(k-2,) from each threshold to the next, above 0."""
        return F.softplus(self.cuts[1:]) + MIN_GAP

    def thresholds(self) -> Tensor:
        """(k-1,) rising."""
        return torch.cat((self.cuts[:1], self.gaps())).cumsum(0)

    def forward(self, features: Tensor) -> Tensor:
        """(b,n) -> (b,k) log-probabilities."""
        above = F.linear(features, self.weight) - self.thresholds()
        low, high = F.logsigmoid(-above[:, :1]), F.logsigmoid(above[:, -1:])
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)); a - b is the gap.
        between = (
            F.logsigmoid(above[:, :-1])
            + F.logsigmoid(-above[:, 1:])
            + torch.log(-torch.expm1(-self.gaps()))
        )
        return torch.cat((low, between, high), 1)


def class_layer(n_features: int, n_classes: int, *, ordinal: bool) -> nn.Module:
    """(b,n) -> class logits (b,k): a linear layer, or one for ordered classes."""
    if ordinal:
        return OrdinalLayer(n_features, n_classes)
    return nn.Linear(n_features, n_classes)
