"""Targets: densities integrate to one, samples follow them, entropies agree with Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

import minflow as mf

TARGETS = {
    "one normal": mf.data.GaussianMixture([[1.0]], [2.0]),
    "two modes": mf.data.GaussianMixture([[-2.0], [2.0]], [0.5, 0.8], [1, 3]),
    "plane": mf.data.GaussianMixture([[0.0, 1.0], [2.0, -1.0]], [[1.0, 0.3], [0.5, 0.5]]),
    "moons": mf.data.TwoMoons(),
    "wide moons": mf.data.TwoMoons(noise=0.4),
}


@pytest.mark.parametrize("name", TARGETS)
def test_density_integrates_to_one(name):
    target = TARGETS[name]
    dim = target.event_shape[0]
    axis = torch.arange(-14, 16, 0.01 if dim == 1 else 0.02, dtype=torch.float64)
    if dim == 2:
        axis = axis[(axis > -2) & (axis < 3)] if name == "moons" else axis[axis.abs() < 5]
    mass = sum(
        target.log_prob(points.reshape(-1, dim)).exp().sum()
        for points in torch.cartesian_prod(*[axis] * dim).split(20_000)
    )
    assert abs(mass * (axis[1] - axis[0]) ** dim - 1) < 1e-4


@pytest.mark.parametrize("name", TARGETS)
def test_entropy_agrees_with_monte_carlo(name):
    target = TARGETS[name]
    generator = torch.Generator().manual_seed(0)
    surprise = -target.log_prob(target.sample((10_000,), generator=generator))
    assert abs(surprise.mean() - target.entropy()) < 4 * surprise.std() / math.sqrt(10_000)


def test_entropy_of_one_normal_is_the_closed_form():
    entropy = TARGETS["one normal"].entropy()
    assert entropy.item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 4), abs=1e-9)


def test_entropy_does_not_depend_on_the_scale_of_one_mode():
    fine = mf.data.GaussianMixture([[0.0, 0.0], [900.0, 0.0]], [0.1, 4.0])
    apart = 0.5 * sum(math.log(2 * math.pi * math.e) + 2 * math.log(s) for s in (0.1, 4.0))
    assert fine.entropy().item() == pytest.approx(apart + math.log(2), abs=1e-6)


@pytest.mark.parametrize("narrow", [0.3, 0.1, 0.01])
def test_entropy_of_a_narrow_peak_on_a_wide_one(narrow):
    target = mf.data.GaussianMixture([[0.0], [0.0]], [1.0, narrow])
    x = torch.arange(-10, 10, narrow / 50, dtype=torch.float64).unsqueeze(-1)
    log_p = target.log_prob(x)
    brute_force = -(log_p.exp() * log_p).sum() * narrow / 50
    assert target.entropy().item() == pytest.approx(brute_force.item(), abs=1e-6)


def test_entropy_of_one_flat_normal():
    flat = mf.data.GaussianMixture([[0.0, 0.0]], [[1.0, 1e-3]])
    assert flat.entropy().item() == pytest.approx(
        math.log(2 * math.pi * math.e) + math.log(1e-3), abs=1e-6
    )


@pytest.mark.parametrize("noise", [0.01, 0.05, 1.0])
def test_moons_density_equals_a_dense_rule_near_and_far(noise):
    moons = mf.data.TwoMoons(noise)
    generator = torch.Generator().manual_seed(0)
    near = moons.sample((40,), generator).double()
    far = near + torch.randn(near.shape, generator=generator, dtype=torch.float64)
    points = torch.cat([near, far, torch.tensor([[0.0, 0.0], [0.0, -3.0], [1.0, 0.5]])])
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) * math.pi / 200_000
    for point in points:
        distance = (moons._arcs(t) - point).square().sum(-1).reshape(-1)
        dense = torch.logsumexp(-distance / (2 * noise**2), 0) - math.log(400_000)
        dense = dense - math.log(2 * math.pi * noise**2)
        torch.testing.assert_close(moons.log_prob(point), dense, rtol=1e-3, atol=1e-5)


def test_entropy_of_widths_too_far_apart_says_so():
    target = mf.data.GaussianMixture([[0.0, 0.0], [0.0, 0.0]], [1.0, 1e-4])
    with pytest.raises(NotImplementedError, match="differ by 10000 times"):
        target.entropy()


@pytest.mark.parametrize("name", TARGETS)
def test_a_generator_repeats_the_sample_and_leaves_the_global_one_alone(name):
    target = TARGETS[name]
    before = torch.get_rng_state()
    first, second = (
        target.sample((5,), generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())
    assert first.shape == (5, *target.event_shape)
    assert target.sample().shape == target.event_shape


def test_moons_lie_where_scikit_learn_puts_them():
    points, label = make_moons(400, noise=None, random_state=0)
    arcs = mf.data.TwoMoons()._arcs(torch.linspace(0, math.pi, 200, dtype=torch.float64))
    for which in (0, 1):
        expected = points[label == which]
        nearest = np.abs(expected[:, None] - arcs[which].numpy()[None]).max(-1).min(1)
        assert nearest.max() < 1e-12


def test_moons_density_equals_a_convolution_by_simulation():
    moons, point = mf.data.TwoMoons(noise=0.3), torch.tensor([0.2, 0.9])
    angles = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * math.pi
    clean = moons._arcs(angles).reshape(-1, 2)
    kernel = torch.exp(-(clean - point).square().sum(-1) / (2 * 0.09)) / (2 * math.pi * 0.09)
    error = 4 * kernel.std() / math.sqrt(200_000)
    assert abs(kernel.mean() - moons.log_prob(point).exp()) < error


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mf.data.GaussianMixture([0.0], [1.0]), r"\(K, D\); got \(1,\)"),
        (lambda: mf.data.GaussianMixture([[0.0]], [1.0, 2.0]), r"\(1,\) or \(1, 1\); got \(2,\)"),
        (lambda: mf.data.GaussianMixture([[0.0]], [-1.0]), "positive"),
        (lambda: mf.data.GaussianMixture([[0.0]], [1.0], [1.0, 1.0]), r"\(1,\); got \(2,\)"),
        (lambda: mf.data.GaussianMixture([[0.0]], [1.0], [0.0]), "positive"),
        (lambda: mf.data.GaussianMixture([[0.0]], [1.0], [math.inf]), "finite"),
        (lambda: mf.data.GaussianMixture([[math.nan]], [1.0]), "finite"),
        (lambda: TARGETS["one normal"].log_prob(torch.zeros(7)), r"\(\.\.\., 1\); got \(7,\)"),
        (lambda: TARGETS["plane"].log_prob(torch.zeros(7, 1)), r"\(\.\.\., 2\)"),
        (lambda: TARGETS["moons"].log_prob(torch.zeros(7, 1)), r"\(\.\.\., 2\)"),
        (lambda: TARGETS["moons"].log_prob([0.0, 0.0]), "got list"),
        (lambda: mf.data.TwoMoons(0.0), "at least 0.001"),
        (lambda: mf.data.TwoMoons(math.nan), "at least"),
    ],
)
def test_wrong_numbers_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_entropy_beyond_two_dimensions_says_so():
    with pytest.raises(NotImplementedError, match="D is 3"):
        mf.data.GaussianMixture(torch.zeros(2, 3), torch.ones(2)).entropy()
