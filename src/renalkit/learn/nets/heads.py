"""Which last layer turns features into classes, unordered or ordered?

Shape legend: b images, n features, m more of them from elsewhere, k classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_GAP = 1e-4
"""Two neighbouring thresholds are at least so far apart, so that every logarithm is finite."""


def _beside(rows: int, n: int, m: int) -> nn.Parameter:
    """Weights (rows,m) drawn as those of a linear layer on n + m features."""
    bound = (n + m) ** -0.5
    return nn.Parameter(torch.empty(rows, m).uniform_(-bound, bound))


class JoinedLayer(nn.Linear):
    """A linear layer whose weights on the last m features are a tensor of their own.

    So the others fit a layer that was trained without those m.
    """

    def __init__(self, n_features: int, n_classes: int, n_beside: int) -> None:
        super().__init__(n_features, n_classes)
        self.beside = _beside(n_classes, n_features, n_beside)

    def forward(self, input: Tensor) -> Tensor:
        """(b,n+m) -> (b,k)."""
        return F.linear(input, torch.cat((self.weight, self.beside), 1), self.bias)


class OrdinalLayer(nn.Module):
    """Ordered classes from one number per image and k - 1 rising thresholds.

    P(class > j) = sigmoid(w f - t_j), one weight vector for all cuts (CORAL, Cao, Mirjalili and
    Raschka 2020). t_0 is free and each later threshold lies a softplus above the one before, so no
    class ever gets a negative probability. The result is the logarithm of each class's
    probability: its softmax is that probability, and whatever reads class logits can read it. The
    weights of n_beside more features are a tensor of their own, as in `JoinedLayer`.
    """

    def __init__(self, n_features: int, n_classes: int, n_beside: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, n_features))
        nn.init.normal_(self.weight, std=n_features**-0.5)
        self.beside = _beside(1, n_features, n_beside) if n_beside else None
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
        weight = self.weight if self.beside is None else torch.cat((self.weight, self.beside), 1)
        above = F.linear(features, weight) - self.thresholds()
        low, high = F.logsigmoid(-above[:, :1]), F.logsigmoid(above[:, -1:])
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)); a - b is the gap.
        between = (
            F.logsigmoid(above[:, :-1])
            + F.logsigmoid(-above[:, 1:])
            + torch.log(-torch.expm1(-self.gaps()))
        )
        return torch.cat((low, between, high), 1)


def class_layer(n_features: int, n_classes: int, *, ordinal: bool, n_beside: int = 0) -> nn.Module:
    """(b,n+m) -> class logits (b,k): a linear layer, or one for ordered classes. n_beside: m."""
    if ordinal:
        return OrdinalLayer(n_features, n_classes, n_beside)
    if n_beside:
        return JoinedLayer(n_features, n_classes, n_beside)
    return nn.Linear(n_features, n_classes)
