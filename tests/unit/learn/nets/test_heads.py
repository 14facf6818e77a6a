"""Ordered classes: probabilities, thresholds, extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.learn.nets.heads import OrdinalLayer, class_layer

torch.set_num_threads(1)


def layer(n_classes, cuts):
    head = OrdinalLayer(1, n_classes).double()
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.cuts.copy_(torch.tensor(cuts))
    return head


def test_cumulative_probabilities_are_sigmoids_of_the_distance_to_the_thresholds():
    head = layer(4, [-1.0, 0.3, -0.7])
    g = torch.tensor([[0.4], [-2.0]], dtype=torch.float64)
    scores = head(g).exp()
    above = torch.sigmoid(g - head.thresholds())
    expected = torch.cat((1 - above[:, :1], above[:, :-1] - above[:, 1:], above[:, -1:]), 1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.softmax(head(g), 1), expected, rtol=0, atol=1e-14)


def test_new_thresholds_lie_one_apart_around_zero():
    torch.testing.assert_close(
        OrdinalLayer(3, 4).thresholds(), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-6, rtol=0
    )


def test_two_classes_are_one_sigmoid():
    head = layer(2, [0.5])
    scores = head(torch.tensor([[1.5]], dtype=torch.float64)).exp()
    assert float(scores[0, 1].detach()) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    g=st.floats(-100, 100),
    cuts=st.lists(st.floats(-30, 30), min_size=1, max_size=5),
)
def test_scores_are_probabilities_and_gradients_finite(g, cuts):
    head = layer(len(cuts) + 1, cuts).float()
    value = torch.tensor([[g]], requires_grad=True)
    logs = head(value)
    assert float(logs.exp().sum().detach()) == pytest.approx(1, abs=1e-5)
    assert bool((head.thresholds().diff() > 0).all())
    logs.sum().backward()
    assert bool(torch.isfinite(logs).all())
    assert bool(torch.isfinite(value.grad).all())
    assert bool(torch.isfinite(head.cuts.grad).all())


def test_a_higher_number_never_means_a_lower_class():
    head = layer(4, [-1.0, 0.1, 0.2])
    g = torch.linspace(-6, 6, 41, dtype=torch.float64)[:, None]
    expected_class = (head(g).exp() * torch.arange(4)).sum(1)
    assert bool((expected_class.diff() > 0).all())


def test_the_choice_of_head():
    assert isinstance(class_layer(3, 2, ordinal=True), OrdinalLayer)
    assert isinstance(class_layer(3, 2, ordinal=False), torch.nn.Linear)
