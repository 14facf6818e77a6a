"""How do B-mode and contrast pictures decide together (P2, P3), or each alone?

Shape legend: b images, m modalities, s side in pixels, n features of a backbone, (y,x) places,
d fused features, k classes, f numbers beside the picture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from renalkit.domain.image import Mode
from renalkit.errors import InputRefused, Reason
from renalkit.learn.nets.backbones import Backbone, BackboneStyle
from renalkit.learn.nets.heads import class_layer
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.outputs import FeatureNet, Guide, Outputs

CUT_AT = 5.0
"""Numbers beside the picture count as at most so many spreads from their mean."""


class Fusion(StrEnum):
    """How the modalities are joined."""

    ADAPTIVE = "adaptive"
    CONCAT = "concat"
    GATED = "gated"
    CROSS_ATTENTION = "cross_attention"


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """What follows the pooled features.

    dropout: before each last layer. ordinal: ordered classes. n_numbers: f; number_width: hidden
    units of their branch, 0 for none.
    """

    dropout: float = 0.3
    ordinal: bool = False
    n_numbers: int = 0
    number_width: int = 16


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Choices of the fusion.

    reduction: hidden units of the attention block are n / reduction. independent: a sigmoid per
    modality in place of the softmax. per_channel: a weight per feature. width: d of the gated
    fusion, and of each modality in cross-attention. heads: of cross-attention.
    """

    kind: Fusion = Fusion.ADAPTIVE
    reduction: int = 16
    independent: bool = False
    per_channel: bool = False
    width: int = 256
    heads: int = 4


class Numbers(nn.Module):
    """Numbers beside the picture, some unknown -> features.

    Each is standardised with mean and spread of the training part and cut at five spreads; an
    unknown one becomes 0, and a second column says which are known. Two linear layers with ReLU
    follow, or nothing where their width is 0.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))
        self.n_features = width or 2 * n
        self.layers: nn.Module = nn.Identity()
        if width:
            hidden = (nn.Linear(2 * n, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.layers = nn.Sequential(*hidden)

    def forward(self, numbers: Tensor) -> Tensor:
        """(b,f) with NaN where unknown -> (b,n_features)."""
        known = ~torch.isnan(numbers)
        standard = ((numbers - self.mean) / self.spread).clamp(-CUT_AT, CUT_AT)
        standard = torch.where(known, standard, torch.zeros_like(standard))
        return self.layers(torch.cat((standard, known.to(standard.dtype)), 1))


class PictureNet(FeatureNet):
    """What single and fused networks share: the check of the input and the numbers' branch."""

    def __init__(self, spec: NetSpec, plan: HeadPlan) -> None:
        super().__init__()
        self.spec = spec
        self.dropout = nn.Dropout(plan.dropout)
        self.numbers = Numbers(plan.n_numbers, plan.number_width) if plan.n_numbers else None
        self.n_beside = 0 if self.numbers is None else self.numbers.n_features

    def standardise(self, mean: Tensor, spread: Tensor) -> None:
        """Take over mean and spread (f,) of the training part; they are kept with the weights.

        Raises:
            ValueError: this network takes no numbers, another count, or a spread not above 0.
        """
        if self.numbers is None or mean.shape != self.numbers.mean.shape != spread.shape:
            raise ValueError(f"mean and spread of shapes {mean.shape} and {spread.shape}")
        if not bool((spread > 0).all()):
            raise ValueError("a spread is not above 0")
        self.numbers.mean.copy_(mean)
        self.numbers.spread.copy_(spread)

    def beside(self, pooled: Tensor, features: Tensor | None) -> Tensor:
        """Pooled features (b,d) with those of the numbers behind them.

        Raises:
            InputRefused: DIMS_MISMATCH, another count of numbers, or none in training.
        """
        given = 0 if features is None else features.shape[1]
        wanted = 0 if self.numbers is None else len(self.numbers.mean)
        if features is None and wanted and not self.training:
            features = pooled.new_full((len(pooled), wanted), torch.nan)
        elif given != wanted:
            raise InputRefused(
                Reason.DIMS_MISMATCH,
                f"{given} numbers beside the picture",
                where="network input",
                expected=str(wanted),
                remedy="give the facts the network was built with, NaN where unknown",
            )
        if self.numbers is None or features is None:
            return pooled
        return torch.cat((pooled, self.numbers(features.to(pooled.dtype))), 1)


class SingleNet(PictureNet):
    """One backbone, the mean over its places, dropout, one layer: B-mode-Net and CEUS-mode-Net."""

    def __init__(
        self, spec: NetSpec, modality: str, backbone: tuple[str, BackboneStyle], plan: HeadPlan
    ) -> None:
        super().__init__(spec, plan)
        self.modality = modality
        self.backbone = Backbone(*backbone)
        n = self.backbone.n_features
        self.fc = class_layer(n, spec.n_classes, ordinal=plan.ordinal, n_beside=self.n_beside)

    def held_in(self, names: Collection[str]) -> Mapping[str, str]:
        """Of a fused network of B and CEUS: the backbone of this modality, or the shared one, and
        the class layer of this modality."""
        place = f"backbones.{(Mode.B, Mode.CEUS).index(Mode(self.modality))}."
        if not any(name.startswith(place) for name in names):
            place = "backbones.0."
        own = {place: "backbone.", f"branches.{self.modality}.": "fc."}
        return {
            ours + n.removeprefix(theirs): n
            for theirs, ours in own.items()
            for n in names
            if n.startswith(theirs)
        }

    def cam_layers(self) -> Mapping[str, nn.Module]:
        return {self.modality: self.backbone}

    def forward(
        self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
    ) -> Outputs:
        """image (b,1,s,s) or (b,3,s,s); features (b,f), NaN where unknown; the guide is not used.

        In eval mode no features at all mean that all are unknown.
        """
        self.spec.check(image)
        pooled = self.beside(self.backbone(image).mean((2, 3)), features)
        return Outputs(None, self.fc(self.dropout(pooled)))


# ---- fusion --------------------------------------------------------------------------------


class Fused(NamedTuple):
    """features (b,d); weights (b,m), how much each modality counts, None where there are none."""

    features: Tensor
    weights: Tensor | None


class AdaptiveFusion(nn.Module):
    """alpha f_B + beta f_C, the weights from one attention block used for every modality (P2).

    score = W2 ReLU(W1 f + b1); weights = softmax of the scores over the modalities. W2 has no bias:
    it would cancel in the softmax. With one weight per channel the stated weight is their mean.
    """

    def __init__(self, n: int, plan: FusionPlan) -> None:
        super().__init__()
        hidden = max(1, n // plan.reduction)
        self.independent = plan.independent
        self.score = nn.Sequential(
            nn.Linear(n, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n if plan.per_channel else 1, bias=False),
        )
        self.n_features = n

    def forward(self, maps: Sequence[Tensor], pooled: Tensor) -> Fused:
        """maps: m tensors (b,n,y,x); pooled (b,m,n)."""
        scores = self.score(pooled)
        weights = torch.sigmoid(scores) if self.independent else torch.softmax(scores, 1)
        return Fused((weights * pooled).sum(1), weights.mean(2))


class ConcatFusion(nn.Module):
    """The features of all modalities side by side."""

    def __init__(self, n: int, n_modalities: int) -> None:
        super().__init__()
        self.n_features = n * n_modalities

    def forward(self, maps: Sequence[Tensor], pooled: Tensor) -> Fused:
        """maps are not used; pooled (b,m,n)."""
        return Fused(pooled.flatten(1), None)


class GatedFusion(nn.Module):
    """Gated multimodal unit (Arevalo et al. 2017): h_m = tanh(W_m f_m), gates from all f.

    The gates are a softmax over the modalities for each of the d features; for two modalities
    that is the unit's sigmoid gate and its complement. The stated weight is the mean over d.
    """

    def __init__(self, n: int, n_modalities: int, width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(n, width) for _ in range(n_modalities))
        self.gate = nn.Linear(n * n_modalities, width * n_modalities)
        self.n_features = width

    def forward(self, maps: Sequence[Tensor], pooled: Tensor) -> Fused:
        """maps are not used; pooled (b,m,n)."""
        hidden = torch.stack(
            [torch.tanh(p(pooled[:, i])) for i, p in enumerate(self.projections)], 1
        )
        gates = torch.softmax(self.gate(pooled.flatten(1)).view_as(hidden), 1)
        return Fused((gates * hidden).sum(1), gates.mean(2))


class CrossAttentionFusion(nn.Module):
    """Every place of one modality asks all places of the other (P2's and P3's future work).

    t_m = P_m F_m (1x1); a_m = LayerNorm(t_m + attention(t_m, t_other, t_other)), one attention for
    both directions as P2 shares its blocks; the means over the places lie side by side.
    """

    def __init__(self, n: int, plan: FusionPlan) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(n, plan.width, 1) for _ in range(2))
        self.attention = nn.MultiheadAttention(plan.width, plan.heads, batch_first=True)
        self.norm = nn.LayerNorm(plan.width)
        self.n_features = 2 * plan.width

    def forward(self, maps: Sequence[Tensor], pooled: Tensor) -> Fused:
        """maps: two tensors (b,n,y,x); pooled is not used."""
        tokens = [
            project(features).flatten(2).transpose(1, 2)
            for project, features in zip(self.projections, maps, strict=True)
        ]
        answers = [
            self.norm(own + self.attention(own, other, other, need_weights=False)[0]).mean(1)
            for own, other in (tokens, tokens[::-1])
        ]
        return Fused(torch.cat(answers, 1), None)


def fusion_of(n: int, n_modalities: int, plan: FusionPlan) -> nn.Module:
    """The fusion of n features of each modality; its `n_features` is d."""
    match plan.kind:
        case Fusion.ADAPTIVE:
            return AdaptiveFusion(n, plan)
        case Fusion.CONCAT:
            return ConcatFusion(n, n_modalities)
        case Fusion.GATED:
            return GatedFusion(n, n_modalities, plan.width)
        case Fusion.CROSS_ATTENTION:
            return CrossAttentionFusion(n, plan)


class MufNet(PictureNet):
    """Two backbones, their fusion, one class layer, and a class layer for each modality alone.

    channels: those of each modality in the input, in order. share_backbone: one backbone looks at
    both, in one batch, so that its normalisation sees in training the mixture it has learned for
    evaluation. Numbers beside the picture join the fused features only.
    """

    def __init__(
        self,
        spec: NetSpec,
        channels: Mapping[str, int],
        backbone: tuple[str, BackboneStyle],
        fusion: FusionPlan,
        plan: HeadPlan,
        *,
        share_backbone: bool = False,
    ) -> None:
        super().__init__(spec, plan)
        self.channels = dict(channels)
        # Weights under one name only: a shared backbone is the first and only member.
        count = 1 if share_backbone else len(channels)
        self.backbones = nn.ModuleList(Backbone(*backbone) for _ in range(count))
        n = cast(Backbone, self.backbones[0]).n_features
        # One place per modality to look at its maps, even where the backbone is shared.
        self.maps = nn.ModuleDict({name: nn.Identity() for name in channels})
        self.fusion = fusion_of(n, len(channels), fusion)
        d = cast(int, self.fusion.n_features)
        self.fc = class_layer(d, spec.n_classes, ordinal=plan.ordinal, n_beside=self.n_beside)
        self.branches = nn.ModuleDict(
            {name: class_layer(n, spec.n_classes, ordinal=plan.ordinal) for name in channels}
        )

    def cam_layers(self) -> Mapping[str, nn.Module]:
        return dict(self.maps.items())

    def start(self, path: Path, sha256: str) -> None:
        """Begin every backbone from one ImageNet file; raises ModelRefused as `Backbone.start`."""
        for backbone in self.backbones:
            cast(Backbone, backbone).start(path, sha256)

    def forward(
        self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
    ) -> Outputs:
        """image (b,c,s,s), the channels of the modalities in order, 0 where one is missing.

        features (b,f), NaN where unknown; in eval mode none at all mean that all are unknown. The
        guide is not used.
        """
        self.spec.check(image)
        parts = self.parts(image)
        if len(self.backbones) == 1:
            both = torch.cat([part.expand(-1, 3, -1, -1) for part in parts])
            maps = self.backbones[0](both)
            # Not `chunk`: an exported network must not take the batch it was exported with for all.
            found = maps.view(len(parts), image.shape[0], *maps.shape[1:]).unbind()
        else:
            found = [look(part) for look, part in zip(self.backbones, parts, strict=True)]
        return self.answer(found, features)

    def parts(self, image: Tensor) -> Sequence[Tensor]:
        """(b,c,s,s) -> the picture of each modality."""
        return image.split(list(self.channels.values()), 1)

    def answer(self, found: Sequence[Tensor], features: Tensor | None) -> Outputs:
        """Feature maps of each modality (b,n,y,x), and numbers (b,f) -> what is said of them."""
        maps = [tap(m) for tap, m in zip(self.maps.values(), found, strict=True)]
        pooled = torch.stack([m.mean((2, 3)) for m in maps], 1)
        fused = cast(Fused, self.fusion(maps, pooled))
        alone = [
            branch(self.dropout(pooled[:, i])) for i, branch in enumerate(self.branches.values())
        ]
        return Outputs(
            None,
            self.fc(self.dropout(self.beside(fused.features, features))),
            branch_logits=torch.stack(alone, 1),
            modality_weights=fused.weights,
        )
