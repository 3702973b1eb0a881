"""Targets: densities integrate to one, samples follow them, entropies agree with Monte Carlo."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons, make_swiss_roll
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.distributions.constraints import real_vector

import minflow as mf

TARGETS = {
    "one normal": mf.data.GaussianMixture([[1.0]], [2.0]),
    "two modes": mf.data.GaussianMixture([[-2.0], [2.0]], [0.5, 0.8], [1, 3]),
    "plane": mf.data.GaussianMixture([[0.0, 1.0], [2.0, -1.0]], [[1.0, 0.3], [0.5, 0.5]]),
    "space": mf.data.GaussianMixture([[0.0, 1.0, 0.0], [1.0, -0.5, 0.5]], [0.6, 0.5]),
    "eight": mf.data.EightGaussians(),
    "four": mf.data.FourGaussians(),
    "moons": mf.data.TwoMoons(),
    "wide moons": mf.data.TwoMoons(noise=0.4),
    "rings": mf.data.Rings(),
    "wide ring": mf.data.Rings([1.0], noise=0.7),
    "roll": mf.data.SwissRoll(),
    "checkerboard": mf.data.Checkerboard(),
    "banana": mf.data.Banana(),
    "narrow banana": mf.data.Banana(sigma=0.5),
    "funnel": mf.data.Funnel(2),
    "funnel in space": mf.data.Funnel(3),
    "U1": mf.data.U1(),
    "U2": mf.data.U2(),
    "U3": mf.data.U3(),
    "U4": mf.data.U4(),
    "narrow U4": mf.data.U4(sigma=0.5),
}
FUNNELS = ["funnel", "funnel in space"]
# Where boxes end along each axis; all of them together hold the mass, but for the funnels'.
EDGES = {
    "one normal": [[-17, -2, 0, 1, 2, 4, 19]],
    "two modes": [[-8, -2.5, -2, -1.5, 0, 1, 2, 3, 10]],
    "plane": [[-9, -1, 0, 1, 2, 9], [-6, -1.5, -1, 0, 0.7, 1, 1.3, 5]],
    "space": [[-6, 0, 1, 6]] * 3,
    "eight": [[-6, -2.4, -1, 1, 2.4, 6]] * 2,
    "four": [[-6, -1, 0, 1, 6]] * 2,
    "moons": [[-1.5, -0.8, -0.3, 0.2, 0.7, 1.2, 1.7, 2.5], [-1, -0.4, -0.1, 0.25, 0.6, 0.9, 1.5]],
    "wide moons": [[-4, -0.5, 0.5, 1.5, 5], [-3.5, -0.3, 0.25, 0.8, 4]],
    "rings": [[-4, -2.6, -1.3, 0, 1.3, 2.6, 4]] * 2,
    "wide ring": [[-7, -1, 0, 1, 7]] * 2,
    "roll": [[-4.2, -2, -1, 0, 1, 2, 4.2]] * 2,
    "checkerboard": [[-4, -2, -1, 0, 2, 4]] * 2,
    "banana": [[-7, 0, 1, 3, 8, 18, 36], [-13, -4, -2, 0, 2, 4, 13]],
    "narrow banana": [[-7, -1, 0, 1, 8], [-4, -0.5, 0, 0.5, 4]],
    "funnel": [[-9, -4, -2, 0, 2, 4, 9], [-20, -3, -1, -0.3, 0, 0.3, 1, 3, 20]],
    "funnel in space": [[-7, -2, 0, 2, 7], [-10, -1, 0, 1, 10], [-10, -1, 0, 1, 10]],
    "U1": [[-6, -2.2, -1.6, 0, 1.6, 2.2, 6], [-6, -1, 0, 1, 6]],
    "U2": [[-13, -7, -3, -1, 0, 1, 3, 7, 13], [-5, -1, 0, 1, 5]],
    "U3": [[-13, -7, -3, -1, 0, 1, 3, 7, 13], [-8, -2, -1, 0, 1, 5]],
    "U4": [[-13, -7, -3, -1, 0, 1, 3, 7, 13], [-8, -3, -2, -1, 0, 1, 5]],
    "narrow U4": [[-4, -0.5, 0, 0.5, 1, 4], [-8, -2, -1, 0, 1, 5]],
}


def test_every_public_target_is_in_the_table():
    public = {
        thing
        for name, thing in vars(mf.data).items()
        if not name.startswith("_") and isinstance(thing, type) and issubclass(thing, Distribution)
    }
    assert public == {type(target) for target in TARGETS.values()}
    assert {thing.__name__ for thing in public} | {"split"} == set(mf.data.__all__)
    assert EDGES.keys() == TARGETS.keys()


def drawn(name, count, seed=0):
    return TARGETS[name].sample((count,), generator=torch.Generator().manual_seed(seed))


def integrals(density, edges):
    """The density over each box of a grid, by Gauss and Legendre's rule."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))
    axes, sizes = [], []
    for axis in edges:
        low, high = torch.tensor(axis, dtype=torch.float64).unfold(0, 2, 1).unsqueeze(-1).unbind(1)
        axes.append(((low + high) / 2 + (high - low) / 2 * nodes).flatten())
        sizes.append(((high - low) / 2 * weights).flatten())
    result = torch.cat([density(x) for x in torch.cartesian_prod(*axes).split(100_000)])
    result = result.reshape([len(axis) for axis in axes])
    for i, (axis, size) in enumerate(zip(edges, sizes, strict=True)):
        result = (result.movedim(i, -1) * size).unflatten(-1, (len(axis) - 1, 40)).sum(-1)
        result = result.movedim(-1, i)
    return result


def masses(name):
    log_prob, dim = TARGETS[name].log_prob, len(EDGES[name])
    return integrals(lambda x: log_prob(x.reshape(-1, dim)).exp(), EDGES[name])


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in FUNNELS])
def test_density_integrates_to_one(name):
    assert masses(name).sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", FUNNELS)
def test_a_funnel_integrates_to_one_neck_and_mouth(name):
    """The inner integrals run over u = x e^(-v/2), and dx = e^(v/2) du."""

    def scaled(point):
        v, u = point[:, :1], point[:, 1:]
        x = torch.cat([v, u * (v / 2).exp()], -1)
        return (TARGETS[name].log_prob(x) + u.shape[1] * v.squeeze(1) / 2).exp()

    dim = len(EDGES[name])
    total = integrals(scaled, [[-27, -9, 0, 9, 27]] + [[-9, 9]] * (dim - 1)).sum()
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_samples_fall_into_boxes_as_the_density_says(name):
    count = 40_000
    found = np.histogramdd(drawn(name, count).double().numpy(), EDGES[name])[0].flatten()
    mass = masses(name).flatten().numpy()
    busy = count * mass > 25  # elsewhere a count is not close to normal: they go into one box
    assert busy.sum() >= 5
    found = np.append(found[busy], count - found[busy].sum())
    mass = np.append(mass[busy], max(0, 1 - mass[busy].sum()))
    spread = np.sqrt(count * mass * (1 - mass)) + 5
    assert np.abs((found - count * mass) / spread).max() < 4.5


@pytest.mark.parametrize("name", TARGETS)
def test_entropy_agrees_with_monte_carlo(name):
    target = TARGETS[name]
    surprise = -target.log_prob(drawn(name, 10_000).double())
    error = surprise.std() / math.sqrt(10_000)
    assert abs(surprise.mean() - target.entropy()) <= 4 * error + 1e-12
    assert target.entropy().dtype == torch.float64


@pytest.mark.parametrize("name", TARGETS)
def test_log_prob_in_float32_is_that_in_float64(name):
    target = TARGETS[name]
    for points in (drawn(name, 1000), 5 * drawn(name, 100)):
        in32, in64 = target.log_prob(points), target.log_prob(points.double())
        assert in32.dtype == torch.float32 and in64.dtype == torch.float64
        torch.testing.assert_close(in32.double(), in64, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_gradients_equal_central_differences(name):
    target, h = TARGETS[name], 1e-6
    points = drawn(name, 200).double().requires_grad_()
    (slope,) = torch.autograd.grad(target.log_prob(points).sum(), points)
    for i in range(points.shape[1]):
        step = torch.zeros(points.shape[1], dtype=torch.float64)
        step[i] = h
        difference = (target.log_prob(points + step) - target.log_prob(points - step)) / (2 * h)
        torch.testing.assert_close(slope[:, i], difference.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_log_prob_and_gradients_are_finite_far_out_in_float32(name):
    target, dim = TARGETS[name], len(EDGES[name])
    ends = torch.tensor([-60.0, -50.0, 0.0, 50.0, 60.0])
    points = torch.cartesian_prod(*[ends] * dim).reshape(-1, dim)
    if target.support is real_vector:
        points = torch.cat([points, 10 * points[points[:, 0].abs() < 20]])
    else:
        points = points[target.support.check(points)]
    log_p = target.log_prob(points.requires_grad_())
    assert len(points) > 0 and log_p.isfinite().all()
    assert torch.autograd.grad(log_p.sum(), points)[0].isfinite().all()


@pytest.mark.parametrize("name", TARGETS)
def test_a_generator_repeats_the_sample_and_leaves_the_global_one_alone(name):
    target = TARGETS[name]
    before = torch.get_rng_state()
    assert torch.equal(drawn(name, 5, seed=1), drawn(name, 5, seed=1))
    assert not torch.equal(drawn(name, 5, seed=1), drawn(name, 5, seed=2))
    target.entropy()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", TARGETS)
def test_shapes_and_support_of_samples(name):
    target = TARGETS[name]
    event = target.event_shape
    assert target.batch_shape == () and target.entropy().shape == ()
    for shape, full in [((), ()), (5, (5,)), ((5,), (5,)), ((2, 3), (2, 3))]:
        sample = target.sample(shape)
        assert sample.shape == (*full, *event) and sample.dtype == torch.float32
        inside = target.support.check(sample)
        assert inside.shape == full and inside.all()
        assert target.log_prob(sample).shape == full


# Mixtures.


def torch_mixture(mixture):
    normals = Independent(Normal(mixture.means, mixture.stds), 1)
    return MixtureSameFamily(Categorical(mixture.weights), normals)


@pytest.mark.parametrize("name", ["two modes", "plane", "space", "eight", "four"])
def test_mixtures_score_as_torch_does(name):
    points = drawn(name, 100)
    expected = torch_mixture(TARGETS[name]).log_prob(points)
    torch.testing.assert_close(TARGETS[name].log_prob(points), expected)


def test_eight_and_four_stand_where_their_sources_put_them():
    eight, four = TARGETS["eight"], TARGETS["four"]
    half = 1 / math.sqrt(2)
    places = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    places += [(half, half), (half, -half), (-half, half), (-half, -half)]
    expected = {(round(4 * half * x, 4), round(4 * half * y, 4)) for x, y in places}
    assert {tuple(np.round(mean, 4) + 0.0) for mean in eight.means.double().numpy()} == expected
    assert torch.all(eight.stds == torch.tensor(0.5 * half))
    assert four.means.tolist() == [[0, -2], [0, 0], [2, 2], [-2, 2]]
    assert torch.all(four.stds == 0.5)
    assert torch.all(eight.weights == 1 / 8) and torch.all(four.weights == 1 / 4)
    other = mf.data.EightGaussians(radius=3.0, std=0.1)
    torch.testing.assert_close(other.means.norm(dim=1), torch.full((8,), 3.0))
    assert torch.all(other.stds == 0.1)


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


def random_mixture(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(2, 6, (), generator=generator))
    means = 2 * torch.randn(count, dim, generator=generator)
    stds = torch.rand(count, dim, generator=generator) + 0.2
    return mf.data.GaussianMixture(means, stds, torch.rand(count, generator=generator) + 0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_the_quadrature_is_not_understated(seed):
    plane = random_mixture(2, seed)
    axis = torch.arange(-16, 16, 0.05, dtype=torch.float64)
    log_p = torch.cat([plane.log_prob(x) for x in torch.cartesian_prod(axis, axis).split(100_000)])
    brute_force = -(log_p.exp() * log_p).sum() * 0.05**2
    entropy, error = plane.entropy_and_error()
    assert abs(entropy - brute_force) < error == 1e-6


def test_the_monte_carlo_of_the_entropy_knows_its_error(monkeypatch):
    planes = [random_mixture(2, seed) for seed in range(60)]
    truth = [plane.entropy() for plane in planes]
    monkeypatch.setattr(mf.data.GaussianMixture, "_grid", lambda self: None)
    found = [plane.entropy_and_error(samples=1000) for plane in planes]
    misses = torch.stack([(h - t) / e for (h, e), t in zip(found, truth, strict=True)])
    assert misses.abs().max() < 4
    assert 0.5 < misses.square().mean().sqrt() < 1.5
    plain = planes[0].log_prob(planes[0].sample((1000,))).std() / math.sqrt(1000)
    assert found[0][1] < plain / 3


def test_the_entropy_in_space_is_that_of_a_plane_and_a_normal():
    plane = TARGETS["plane"]
    third = (
        torch.cat([plane.means, torch.ones(2, 1)], 1),
        torch.cat([plane.stds, torch.ones(2, 1)], 1),
    )
    entropy, error = mf.data.GaussianMixture(*third).entropy_and_error()
    exact = plane.entropy() + 0.5 * math.log(2 * math.pi * math.e)
    assert abs(entropy - exact) < 4 * error
    assert 0 < error < 1e-3


@pytest.mark.parametrize(
    ("means", "lost"), [([[0.0] * 3] * 2, 0.0), ([[0.0] * 3, [90.0] * 3], math.log(2))]
)
def test_the_entropy_of_equal_and_of_far_components_is_exact(means, lost):
    entropy, error = mf.data.GaussianMixture(means, [1.0, 1.0]).entropy_and_error(samples=10)
    assert entropy.item() == pytest.approx(1.5 * math.log(2 * math.pi * math.e) + lost, abs=1e-12)
    # Five points of each say little of what they never met: the error does not vanish.
    assert error.item() == pytest.approx(math.log(2) / 5 / math.sqrt(2), rel=1e-3)


def test_entropy_of_widths_too_far_apart_for_a_grid():
    thin, flat = [1e-4, 1e-4], [1.0, 1.0]
    entropy, error = mf.data.GaussianMixture([[0.0, 0.0]] * 2, [thin, flat]).entropy_and_error()
    apart = math.log(2 * math.pi * math.e) + 0.5 * math.log(1e-8) + math.log(2)
    assert entropy.item() == pytest.approx(apart, abs=1e-6)
    assert 0 < error < 1e-5
    line = mf.data.GaussianMixture([[0.0], [0.0]], [1e-9, 1.0])
    apart = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * math.log(1e-9) + math.log(2)
    assert line.entropy().item() == pytest.approx(apart, abs=1e-6)


# Curves.


def dense(curve, noise, points):
    """log p at each point by summing the noise over every point of a finely cut curve."""
    logs = [
        torch.logsumexp(-(curve - point).square().sum(-1) / (2 * noise**2), 0) for point in points
    ]
    return torch.stack(logs) - math.log(len(curve) * 2 * math.pi * noise**2)


def near_and_far(target):
    generator = torch.Generator().manual_seed(0)
    near = target.sample((40,), generator).double()
    far = near + torch.randn(near.shape, generator=generator, dtype=torch.float64)
    return torch.cat([near, far, torch.tensor([[0.0, 0.0], [0.0, -3.0], [1.0, 0.5]])])


def midpoints(low, high, count):
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("noise", [0.01, 0.05, 1.0])
def test_moons_density_equals_a_dense_rule_near_and_far(noise):
    moons = mf.data.TwoMoons(noise)
    points = near_and_far(moons)
    arcs = moons._arcs(midpoints(0, math.pi, 200_000)).reshape(-1, 2)
    expected = dense(arcs, noise, points)
    torch.testing.assert_close(moons.log_prob(points), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("noise", [0.05, 0.2, 5.0])
def test_roll_density_equals_a_dense_rule_near_and_far(noise):
    roll = mf.data.SwissRoll(noise)
    t = midpoints(1.5 * math.pi, 4.5 * math.pi, 200_000)
    curve = torch.stack([t * t.cos(), t * t.sin()], -1) / 5
    points = near_and_far(roll)
    close = torch.cdist(points, curve[::100]).amin(1) < 8 * noise
    found, expected = roll.log_prob(points), dense(curve, noise, points)
    torch.testing.assert_close(found[close], expected[close], rtol=0, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("radii", "noise"), [([0.75, 3.0], 0.08), ([1.0], 0.001), ([2.0], 9.0)])
def test_rings_density_equals_a_dense_rule_near_and_far(radii, noise):
    rings = mf.data.Rings(radii, noise)
    t = midpoints(0, 2 * math.pi, 100_000)
    circle = torch.stack([t.cos(), t.sin()], -1)
    curve = torch.cat([radius * circle for radius in radii])
    points = near_and_far(rings)
    expected = dense(curve, noise, points)
    torch.testing.assert_close(rings.log_prob(points), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["rings", "wide ring", "roll", "moons", "wide moons"])
def test_entropy_equals_a_finer_grid(name):
    target = TARGETS[name]
    step = target.noise / 5
    axis = torch.arange(-5 - 7 * (step > 0.05), 5 + 7 * (step > 0.05), step, dtype=torch.float64)
    inside = axis[(axis > -1.6) & (axis < 2.6)] if name == "moons" else axis
    brute_force = 0
    for rows in inside.split(16):
        log_p = target.log_prob(torch.cartesian_prod(rows, inside))
        brute_force -= (log_p.exp() * log_p).sum().item() * step**2
    assert target.entropy().item() == pytest.approx(brute_force, abs=1e-5)


def test_moons_lie_where_scikit_learn_puts_them():
    points, label = make_moons(400, noise=None, random_state=0)
    arcs = mf.data.TwoMoons()._arcs(torch.linspace(0, math.pi, 200, dtype=torch.float64))
    for which in (0, 1):
        expected = points[label == which]
        nearest = np.abs(expected[:, None] - arcs[which].numpy()[None]).max(-1).min(1)
        assert nearest.max() < 1e-12


def test_the_roll_is_that_of_scikit_learn_with_noise_one_divided_by_five():
    clean, t = make_swiss_roll(100, noise=0.0, random_state=0)
    curve = TARGETS["roll"]._roll(torch.from_numpy(t))
    np.testing.assert_allclose(curve, clean[:, [0, 2]] / 5, atol=1e-12)
    noisy, _ = make_swiss_roll(20_000, noise=1.0, random_state=0)
    surprise = -TARGETS["roll"].log_prob(torch.from_numpy(noisy[:, [0, 2]] / 5))
    error = surprise.std() / math.sqrt(20_000)
    assert abs(surprise.mean() - TARGETS["roll"].entropy()) < 4 * error


def test_moons_density_equals_a_convolution_by_simulation():
    moons, point = mf.data.TwoMoons(noise=0.3), torch.tensor([0.2, 0.9])
    angles = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * math.pi
    clean = moons._arcs(angles).reshape(-1, 2)
    kernel = torch.exp(-(clean - point).square().sum(-1) / (2 * 0.09)) / (2 * math.pi * 0.09)
    error = 4 * kernel.std() / math.sqrt(200_000)
    assert abs(kernel.mean() - moons.log_prob(point).exp()) < error


def test_the_roll_scores_a_large_batch_in_pieces_as_one_by_one():
    roll, points = mf.data.SwissRoll(0.05), 2 * drawn("roll", 6000).reshape(2, 3000, 2)
    assert points.numel() // 2 * len(roll._curve) > 2**22  # so that it does come in pieces
    found = roll.log_prob(points)
    assert found.shape == (2, 3000)
    for i, j in [(0, 0), (0, 2999), (1, 0), (1, 2999)]:
        torch.testing.assert_close(found[i, j], roll.log_prob(points[i, j]))


# Shapes.


def test_checkerboard_in_and_out_of_its_squares():
    board, below = TARGETS["checkerboard"], math.nextafter(4.0, 0.0)
    inside = [[-4, -4], [0, 0], [1.9, 0.1], [3, 3], [-1, -1], [-3, 1], [below, below], [2, -2]]
    outside = [[4, 2], [2, 4], [4, 4], [-4.001, -3], [2, 0], [-1, 1], [9, 9], [math.inf, 1]]
    inside, outside = (torch.tensor(x, dtype=torch.float64) for x in (inside, outside))
    assert board.support.check(inside).all() and not board.support.check(outside).any()
    assert torch.all(board.log_prob(inside) == -math.log(32))
    assert torch.all(board.log_prob(outside) == -math.inf)
    assert board.log_prob(torch.tensor([math.nan, 1.0])).isnan()
    assert not board.support.check(torch.tensor([math.nan, 1.0]))
    assert board.entropy().item() == pytest.approx(math.log(8 * 2 * 2), abs=1e-15)
    points = torch.cat([inside, outside]).requires_grad_()
    (slope,) = torch.autograd.grad(board.log_prob(points).sum(), points)
    assert torch.all(slope == 0)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])  # the ends of torch.rand in float32
def test_checkerboard_samples_stay_inside_at_the_extreme_random_numbers(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, uniform))
    sample = TARGETS["checkerboard"].sample((1000,))
    assert len(sample.unique(dim=0)) == 8  # one in each square
    assert TARGETS["checkerboard"].support.check(sample).all()
    if uniform > 0:
        for step in torch.eye(2) * 2**-21:  # so close to both upper edges that this leaves it
            assert not TARGETS["checkerboard"].support.check(sample + step).any()


def test_many_checkerboard_samples_stay_inside():
    board = TARGETS["checkerboard"]
    sample = board.sample((3_000_000,), generator=torch.Generator().manual_seed(0))
    assert sample.dtype == torch.float32 and board.support.check(sample).all()


def test_checkerboard_has_the_squares_of_its_source():
    """The usual recipe: a column of unit width, a row or the one two below it, all doubled."""
    x1, x2, lower = torch.rand(3, 10_000, generator=torch.Generator().manual_seed(0)).double()
    x1 = 4 * x1 - 2
    x2 = x2 - 2 * (lower < 0.5) + x1.floor() % 2
    points = 2 * torch.stack([x1, x2], -1)
    assert TARGETS["checkerboard"].support.check(points).all()
    assert len((points / 2).floor().unique(dim=0)) == 8


@pytest.mark.parametrize("sigma", [0.5, 2.0, 7.0])
def test_banana_is_two_normals(sigma):
    banana = mf.data.Banana(sigma)
    points = banana.sample((100,), generator=torch.Generator().manual_seed(0)).double()
    x1, x2 = points.unbind(-1)
    across, along = Normal(x2**2 / 4, torch.ones_like(x1)), Normal(0 * x2, 0 * x2 + sigma)
    torch.testing.assert_close(banana.log_prob(points), along.log_prob(x2) + across.log_prob(x1))
    entropy = along.entropy()[0] + across.entropy()[0]
    torch.testing.assert_close(banana.entropy(), entropy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_funnel_is_a_normal_and_normals_of_its_width(dim):
    funnel = mf.data.Funnel(dim)
    points = funnel.sample((100,), generator=torch.Generator().manual_seed(0)).double()
    v, x = points[:, 0], points[:, 1:]
    neck = Normal(0, torch.sqrt(v.exp()).unsqueeze(1)).log_prob(x).sum(1)
    torch.testing.assert_close(funnel.log_prob(points), Normal(0, 3).log_prob(v) + neck)
    assert funnel.event_shape == (dim,)


# Energies.

ENERGIES = ["U1", "U2", "U3", "U4"]
WIDTHS = {"U2": [0.4], "U3": [0.35, 0.35], "U4": [0.4, 0.35]}


def wave(name, sigma):
    return getattr(mf.data, name)(sigma)


def apart(name, x1):
    """How far the second branch lies below the first: w₂ or w₃ of the paper."""
    return {
        "U3": 3 * torch.exp(-0.5 * ((x1 - 1) / 0.6) ** 2),
        "U4": 3 / (1 + torch.exp(-(x1 - 1) / 0.3)),
    }[name]


def paper(name, x1, x2):
    """U as the paper writes it, of two numbers."""

    def bump(u):
        return math.exp(-0.5 * u**2)

    w1 = math.sin(2 * math.pi * x1 / 4)
    w2 = 3 * math.exp(-0.5 * ((x1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(x1 - 1) / 0.3))
    if name == "U1":
        ring = 0.5 * ((math.hypot(x1, x2) - 2) / 0.4) ** 2
        return ring - math.log(bump((x1 - 2) / 0.6) + bump((x1 + 2) / 0.6))
    if name == "U2":
        return 0.5 * ((x2 - w1) / 0.4) ** 2
    if name == "U3":
        return -math.log(bump((x2 - w1) / 0.35) + bump((x2 - w1 + w2) / 0.35))
    return -math.log(bump((x2 - w1) / 0.4) + bump((x2 - w1 + w3) / 0.35))


@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_is_that_of_the_paper(name):
    points = torch.cartesian_prod(*[torch.linspace(-4, 4, 23, dtype=torch.float64)] * 2)
    expected = torch.tensor([paper(name, *point) for point in points.tolist()]).double()
    torch.testing.assert_close(TARGETS[name].energy(points), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\); got \(3,\)"):
        TARGETS[name].energy(torch.zeros(3))


@pytest.mark.parametrize("name", ENERGIES)
def test_density_of_an_energy_in_its_parts(name):
    points = drawn(name, 100).double()
    for target in [TARGETS[name]] if name == "U1" else [TARGETS[name], wave(name, 0.3)]:
        log_p = -target.energy(points)
        if name != "U1":
            log_p += Normal(0.0, target.sigma).log_prob(points[:, 0])
        torch.testing.assert_close(target.log_unnormalized(points), log_p)
        torch.testing.assert_close(target.log_prob(points), log_p - target.log_normalizer)


@pytest.mark.parametrize(
    ("name", "sigma"), [("U1", None), *((name, s) for name in WIDTHS for s in (0.3, 2.0, 5.0))]
)
def test_normalizer_of_an_energy_equals_a_quadrature(name, sigma):
    target = TARGETS[name] if sigma is None else wave(name, sigma)
    x1 = torch.arange(-40, 40, 0.04, dtype=torch.float64)
    x2 = torch.arange(-9, 8, 0.04, dtype=torch.float64)
    parts = [torch.cartesian_prod(rows, x2) for rows in x1.split(200)]
    total = sum(target.log_unnormalized(x).exp().sum().item() for x in parts)
    assert target.log_normalizer == pytest.approx(math.log(total * 0.04**2), abs=1e-9)
    if sigma is not None:
        closed = math.log(sum(WIDTHS[name]) * math.sqrt(2 * math.pi))
        assert target.log_normalizer == pytest.approx(closed, abs=1e-12)


@pytest.mark.parametrize("name", WIDTHS)
def test_without_an_envelope_the_mass_of_a_wave_grows_for_ever(name):
    for half in (4, 8, 40):
        edges = [list(range(-half, half + 1)), EDGES[name][1]]
        mass = integrals(lambda x: (-TARGETS[name].energy(x)).exp(), edges).sum().item()
        expected = 2 * half * sum(WIDTHS[name]) * math.sqrt(2 * math.pi)
        assert mass == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("sigma", [0.6, 2.0])
@pytest.mark.parametrize("name", WIDTHS)
def test_x1_is_normal_and_x2_given_x1_a_mixture(name, sigma):
    target, widths = wave(name, sigma), torch.tensor(WIDTHS[name], dtype=torch.float64)
    x = target.sample((100_000,), generator=torch.Generator().manual_seed(0)).double()
    x1, x2 = x.unbind(-1)
    w1 = torch.sin(2 * math.pi * x1 / 4)
    centres = torch.stack([w1] if name == "U2" else [w1, w1 - apart(name, x1)], -1)
    envelope = Normal(torch.tensor(0.0).double(), sigma)
    given = MixtureSameFamily(Categorical(widths.expand_as(centres)), Normal(centres, widths))
    expected = envelope.log_prob(x1) + given.log_prob(x2)
    torch.testing.assert_close(target.log_prob(x), expected, rtol=1e-6, atol=1e-6)
    # So both CDFs together spread the samples evenly over the unit square.
    u = torch.stack([envelope.cdf(x1), given.cdf(x2)], -1).numpy()
    for cells in [(8, 8), (4, 2)]:  # the larger ones notice weights that are slightly wrong
        found = np.histogramdd(u, cells, [(0, 1)] * 2)[0]
        expected = 100_000 / math.prod(cells)
        assert np.abs(found - expected).max() < 4.5 * math.sqrt(expected)


@pytest.mark.parametrize("sigma", [0.02, 2.0, 5.0])
@pytest.mark.parametrize("name", WIDTHS)
def test_entropy_of_a_wave_is_that_of_x1_and_of_x2_given_x1(name, sigma):
    x1 = torch.linspace(-8 * sigma, 8 * sigma, 601, dtype=torch.float64)
    mass = Normal(0.0, sigma).log_prob(x1).exp() * (x1[1] - x1[0])
    given = 0.5 * math.log(2 * math.pi * math.e * 0.4**2)
    if name != "U2":
        widths = WIDTHS[name]
        mixtures = [mf.data.GaussianMixture([[0.0], [-d]], widths, widths) for d in apart(name, x1)]
        given = mass @ torch.stack([mixture.entropy() for mixture in mixtures])
    expected = 0.5 * math.log(2 * math.pi * math.e * sigma**2) + float(given)
    assert wave(name, sigma).entropy().item() == pytest.approx(expected, abs=2e-6)


def test_entropy_of_the_ring_is_its_log_normalizer_and_its_mean_energy():
    """In polar coordinates, by the midpoint rule."""
    ring = TARGETS["U1"]
    r, t = torch.cartesian_prod(midpoints(0, 6, 400), midpoints(0, 2 * math.pi, 200)).unbind(-1)
    energy = ring.energy(torch.stack([r * t.cos(), r * t.sin()], -1))
    weight = (-energy).exp() * r * (6 / 400) * (2 * math.pi / 200)
    assert weight.sum().log().item() == pytest.approx(ring.log_normalizer, abs=1e-9)
    mean = (weight * energy).sum() / weight.sum()
    assert ring.entropy().item() == pytest.approx(ring.log_normalizer + mean.item(), abs=1e-8)


def test_the_proposal_of_the_ring_covers_it_everywhere():
    """A chance above one would leave samples out there: too few for a count to notice."""
    grid = torch.cartesian_prod(*[torch.linspace(-8, 8, 961, dtype=torch.float64)] * 2)
    log_chance = TARGETS["U1"]._log_acceptance(grid)
    assert -1e-6 < log_chance.max().item() < 1e-12  # and M is no larger than it must be
    x1, x2 = grid.unbind(-1)
    sides = Normal(-2, 0.6).log_prob(x1).logaddexp(Normal(2, 0.6).log_prob(x1))
    log_ratio = TARGETS["U1"].log_unnormalized(grid) - sides - Normal(0, 2).log_prob(x2)
    constant = (log_ratio - log_chance)[0]
    torch.testing.assert_close(log_ratio, log_chance + constant, rtol=1e-5, atol=1e-5)


def test_many_samples_of_the_ring_have_its_moments():
    """A proposal that is slightly too narrow moves them, too little for a count to see."""
    axis = torch.linspace(-6, 6, 481, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = TARGETS["U1"].log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
    sample = drawn("U1", 400_000).double()
    for moment in (lambda x: x[:, 1].square(), lambda x: x[:, 0].abs(), lambda x: x.norm(dim=1)):
        found, expected = moment(sample), mass @ moment(grid)
        assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(400_000)


@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_gives_no_points_and_many(name):
    assert TARGETS[name].sample((3, 0)).shape == (3, 0, 2)
    assert len(drawn(name, 100_000).unique(dim=0)) == 100_000


# What is handed in.


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
        (lambda: TARGETS["eight"].entropy_and_error(samples=15), "at least 16 samples; got 15"),
        (lambda: mf.data.EightGaussians(radius=0.0), r"radius must be positive.*got 0\.0"),
        (lambda: mf.data.EightGaussians(std=math.inf), "std must be.*finite; got inf"),
        (lambda: mf.data.TwoMoons(0.0), r"noise must be.*at least 0\.001; got 0\.0"),
        (lambda: mf.data.TwoMoons(math.nan), "noise must be.*at least.*got nan"),
        (lambda: mf.data.Rings([]), r"radii must have shape \(K,\); got \(0,\)"),
        (lambda: mf.data.Rings([[1.0]]), r"radii must have shape \(K,\); got \(1, 1\)"),
        (lambda: mf.data.Rings([1.0, -2.0]), r"radii must be positive.*got -2\.0"),
        (lambda: mf.data.Rings([1.0, 50.0], 0.04), r"noise must be.*at least 0\.05; got 0\.04"),
        (lambda: mf.data.SwissRoll(0.04), r"noise must be.*at least 0\.05; got 0\.04"),
        (lambda: mf.data.SwissRoll(math.inf), "noise must be finite.*got inf"),
        (lambda: mf.data.Banana(-2.0), r"sigma must be positive.*got -2\.0"),
        (lambda: mf.data.Banana(math.nan), "sigma must be.*got nan"),
        (lambda: mf.data.Funnel(1), "dim must be a whole number of at least 2; got 1"),
        (lambda: mf.data.Funnel(2.5), "dim must be a whole number.*got 2.5"),
        (lambda: mf.data.U2(0.0), r"sigma must be positive.*got 0\.0"),
        (lambda: mf.data.U3(-1.0), r"sigma must be positive.*got -1\.0"),
        (lambda: mf.data.U4(math.inf), "sigma must be.*finite; got inf"),
    ],
)
def test_wrong_numbers_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", TARGETS)
def test_wrong_points_are_named(name):
    target, dim = TARGETS[name], len(EDGES[name])
    shape = rf"floating tensor of shape \(\.\.\., {dim}\); got "
    for points, got in [
        (torch.zeros(7, dim + 1), rf"\(7, {dim + 1}\)$"),
        (torch.zeros(()), r"\(\)$"),
        (torch.zeros(7, dim, dtype=torch.int64), rf"\(7, {dim}\) of torch.int64"),
        ([0.0] * dim, "list"),
    ]:
        with pytest.raises(ValueError, match=shape + got):
            target.log_prob(points)


# The reader's rows.


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
@pytest.mark.parametrize("total", [10, 37, 1000])
def test_split_deals_every_row_to_one_part(kind, total):
    rows = np.arange(2 * total, dtype=np.float32).reshape(total, 2)
    data = kind(rows.copy())
    before = torch.get_rng_state()
    parts = mf.data.split(data)
    assert torch.equal(before, torch.get_rng_state())
    assert len(parts) == 3 and all(type(part) is type(data) for part in parts)
    assert all(part.dtype == data.dtype for part in parts)
    together = np.concatenate([np.asarray(part) for part in parts])
    np.testing.assert_array_equal(together[together[:, 0].argsort()], rows)
    assert not np.array_equal(together, rows)  # they are shuffled
    for part, fraction in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert abs(len(part) - fraction * total) <= 1
    parts[0][:] = -1
    np.testing.assert_array_equal(np.asarray(data), rows)  # a part is a copy


def test_split_keeps_rows_together_and_follows_its_seed():
    x = torch.arange(50.0).unsqueeze(1)
    first, second = mf.data.split(x, seed=3), mf.data.split((x.numpy() * 10).squeeze(1), seed=3)
    for part, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(part.squeeze(1).numpy() * 10, other)
    assert not torch.equal(first[0], mf.data.split(x, seed=4)[0])


def test_split_into_other_parts():
    x = torch.arange(9)
    assert [len(part) for part in mf.data.split(x, (1 / 3, 1 / 3, 1 / 3))] == [3, 3, 3]
    assert [len(part) for part in mf.data.split(x, [0.5, 0.5])] == [4, 5]
    assert mf.data.split(x, (1.0,))[0].sort().values.equal(x)
    assert [len(part) for part in mf.data.split(torch.zeros(10), [0.1] * 10)] == [1] * 10


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            [torch.zeros(5)],
            ValueError,
            r"5 rows leave a part empty: fractions \(0\.8, 0\.1, 0\.1\)",
        ),
        ([torch.zeros(0, 2), (0.5, 0.5)], ValueError, "0 rows"),
        ([torch.zeros(()), (0.5, 0.5)], ValueError, "single number"),
        ([torch.zeros(9), (0.5, 0.4)], ValueError, r"sum 1; got \(0\.5, 0\.4\)"),
        ([torch.zeros(9), (1.5, -0.5)], ValueError, r"positive with sum 1; got \(1\.5, -0\.5\)"),
        ([torch.zeros(9), (1.0, 0.0)], ValueError, r"positive with sum 1; got \(1\.0, 0\.0\)"),
        ([torch.zeros(9), (math.nan, 0.5)], ValueError, "positive with sum 1; got"),
        ([torch.zeros(9), ()], ValueError, r"sum 1; got \(\)"),
        ([[1.0, 2.0, 3.0]], TypeError, "NumPy array or a torch tensor; got list"),
    ],
)
def test_split_names_what_is_wrong(arguments, error, words):
    with pytest.raises(error, match=words):
        mf.data.split(*arguments)


def test_the_library_starts_without_scipy_and_scikit_learn():
    script = "import sys, minflow; print(sys.modules.keys() & {'scipy', 'sklearn', 'matplotlib'})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
