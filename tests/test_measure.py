"""paired_gap: a divergence with an error that is honest."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

import minflow as mf


def normal(mean, std):
    return Independent(Normal(torch.tensor(mean), torch.tensor(std)), 1)


def test_it_estimates_the_divergence_within_its_error():
    p, q = normal([0.0, 1.0], [1.0, 0.5]), normal([0.2, 1.0], [1.3, 0.4])
    exact = kl_divergence(p, q).item()
    torch.manual_seed(0)
    within = 0
    for _ in range(200):
        gap = mf.paired_gap(p, q, p.sample((500,)))
        within += abs(gap.nats - exact) < gap.error
    assert 0.6 < within / 200 < 0.76  # one standard error holds 68 in a hundred


def test_it_says_its_numbers():
    gap = mf.paired_gap(normal([0.0], [1.0]), normal([1.0], [1.0]), torch.tensor([[0.0], [1.0]]))
    assert gap == mf.Gap(nats=0.0, error=pytest.approx(0.5))
    assert str(gap) == "0.000 ± 0.500 nats"


def test_conditional_flows_go_in_as_distributions():
    from contract import Conditional

    torch.manual_seed(0)
    flow, context = mf.Flow(Conditional(1, mf.Affine())), torch.randn(50, 2)
    x = torch.randn(50, 1)
    gap = mf.paired_gap(normal([0.0], [1.0]), flow.distribution(context), x)
    by_hand = normal([0.0], [1.0]).log_prob(x) - flow.log_prob(x, context)
    assert gap.nats == pytest.approx(by_hand.mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("q", "x", "words"),
    [
        (normal([0.0], [1.0]), torch.zeros(1, 1), r"N >= 2; got \(1, 1\)"),
        (normal([0.0], [1.0]), torch.zeros(5), r"got \(5,\)"),
        (Normal(torch.zeros(1), torch.ones(1)), torch.zeros(5, 1), r"q.log_prob.*got \(5, 1\)"),
    ],
)
def test_wrong_input_is_named(q, x, words):
    with pytest.raises(ValueError, match=words):
        mf.paired_gap(normal([0.0], [1.0]), q, x)
