"""The formula sheet, checked: against quadrature, simulation or automatic differentiation.

The rows of its tables are read from the page, so a row that no test knows is noticed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.special import digamma
from torch.utils._python_dispatch import TorchDispatchMode

import minflow
from minflow.nets import MaskedMLP
from minflow.run import Plan
from minflow.scalar_map import soft_bound

PAGE = (Path(__file__).resolve().parent.parent / "book" / "formulas.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of each table under a heading, without its header."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    lines = [line for table in tables for line in table.splitlines()[2:]]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


def names(heading: str) -> set[str]:
    return {row[0].strip("| ") for row in rows(heading)}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def close(a: Tensor | float, b: Tensor | float, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64),
        torch.as_tensor(b, dtype=torch.float64),
        rtol=tolerance,
        atol=tolerance,
    )


def integral(h: Callable[[Tensor], Tensor], low: float, high: float, n: int = 400_001) -> Tensor:
    """∫h, by Simpson's rule."""
    x = torch.linspace(low, high, n, dtype=torch.float64)
    y = h(x)
    return (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()) * (x[1] - x[0]) / 3


def xlogx(p: Tensor) -> Tensor:
    return torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0)


def normal(x: Tensor, mu: float = 0.0, sigma: float = 1.0) -> Tensor:
    return torch.exp(-0.5 * ((x - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def log_normal(x: Tensor, mu: Tensor, cov: Tensor) -> Tensor:
    """log N(x; μ, Σ), written with an inverse and a determinant."""
    d = x - mu
    mahalanobis = ((d @ torch.linalg.inv(cov)) * d).sum(-1)
    return -0.5 * (mahalanobis + torch.logdet(cov) + len(mu) * math.log(2 * math.pi))


# The change of variables

RISING = (lambda z: z + 0.5 * z.sin(), lambda z: 1 + 0.5 * z.cos())
FALLING = (lambda z: 1 - 2 * z - z**3, lambda z: -2 - 3 * z**2)


@pytest.mark.parametrize(("f", "slope"), [RISING, FALLING], ids=["rising", "falling"])
def test_one_variable_mass_and_cdf(f: Callable, slope: Callable) -> None:
    """The formula's density gives f(A) the mass of A, and the line 1; its CDF is the one said."""
    low, high = number(-0.7), number(1.1)
    z = torch.linspace(-12, 12, 2_000_001, dtype=torch.float64)
    x, density = f(z), normal(z) / slope(z).abs()
    widths = (x[1:] - x[:-1]).abs()
    mass = 0.5 * (density[1:] + density[:-1]) * widths  # an integral over x, not over z
    inside = (z[:-1] >= low) & (z[1:] <= high)
    phi = torch.special.ndtr
    close(mass.sum(), 1.0)
    close(mass[inside].sum(), phi(high) - phi(low), 1e-5)
    below = mass[torch.maximum(x[1:], x[:-1]) <= f(low)].sum()
    close(below, phi(low) if f(high) > f(low) else 1 - phi(low), 1e-5)


def swirl(z: Tensor) -> Tensor:
    """An invertible map of the plane: a triangular one, then a turn by an angle of the radius."""
    x = torch.stack([z[0] * 1.5 + 0.3, z[1] * torch.exp(0.3 * z[0].sin()) + z[0] ** 2 / 4])
    angle = 0.5 * torch.exp(-x.square().sum())
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[0] - s * x[1], s * x[0] + c * x[1]])


def unswirl(x: Tensor) -> Tensor:
    angle = -0.5 * torch.exp(-x.square().sum())
    c, s = angle.cos(), angle.sin()
    y = torch.stack([c * x[0] - s * x[1], s * x[0] + c * x[1]])
    first = (y[0] - 0.3) / 1.5
    return torch.stack([first, (y[1] - first**2 / 4) * torch.exp(-0.3 * first.sin())])


def log_det(f: Callable, point: Tensor) -> Tensor:
    return torch.linalg.slogdet(jacobian(f, point)).logabsdet


def test_inverse_rule_and_composition() -> None:
    z = torch.tensor([0.4, -1.2], dtype=torch.float64)
    x = swirl(z)
    close(unswirl(x), z)
    close(jacobian(unswirl, x), torch.linalg.inv(jacobian(swirl, z)))
    close(log_det(unswirl, x), -log_det(swirl, z))
    both = log_det(lambda point: swirl(swirl(point)), z)
    close(both, log_det(swirl, z) + log_det(swirl, swirl(z)))


def test_many_variables_mean_and_mass() -> None:
    """∫ h(x) q(x) dx = E[h(f(z))], with q from the formula, on a grid in x."""
    steps = torch.linspace(-9, 11, 401, dtype=torch.float64)
    x = torch.cartesian_prod(steps, steps)
    z = torch.func.vmap(unswirl)(x)
    jacobians = torch.func.vmap(torch.func.jacrev(unswirl))(x)
    log_q = -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + torch.linalg.slogdet(jacobians)[1]
    weight = log_q.exp() * (steps[1] - steps[0]) ** 2
    close(weight.sum(), 1.0, 1e-4)
    grid = torch.linspace(-7, 7, 281, dtype=torch.float64)
    base = torch.cartesian_prod(grid, grid)
    mass = torch.exp(-0.5 * base.square().sum(-1)) / (2 * math.pi) * (grid[1] - grid[0]) ** 2
    pushed = torch.func.vmap(swirl)(base)
    for h in (lambda p: p[:, 1], lambda p: (p[:, 0] * p[:, 1]).sin()):
        close((weight * h(x)).sum(), (mass * h(pushed)).sum(), 1e-3)


def test_scoring_a_sample_on_its_way_out_agrees_with_scoring_it_as_data() -> None:
    flow = minflow.Flow(minflow.Elementwise(2, minflow.MixtureCDF())).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(flow.transform.params)
    x, log_q = flow.sample_and_log_prob(64)
    close(log_q, flow.log_prob(x))


def test_uniform_and_back() -> None:
    """F⁻¹ of evenly spaced u has the moments of the law, and F of those points is even again."""
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    x = -torch.log1p(-u) / 2  # the exponential law with rate 2
    close(x.mean(), 1 / 2, 1e-4)
    close(x.var(), 1 / 4, 1e-3)
    close(1 - torch.exp(-2 * x), u)


def test_contributions_add_where_the_map_is_not_one_to_one() -> None:
    """x = z²: the sum over both roots is the chi-squared density, and has the right mass."""

    def density(x: Tensor) -> Tensor:
        return sum(normal(root) / (2 * root).abs() for root in (x.sqrt(), -x.sqrt()))

    low, high = 0.3, 2.5
    phi = torch.special.ndtr
    mass = 2 * (phi(number(high).sqrt()) - phi(number(low).sqrt()))
    close(integral(density, low, high), mass)


def test_not_square() -> None:
    """A curve in the plane: the density along its arc integrates to one, by length, not by z."""
    z = torch.linspace(-10, 10, 400_001, dtype=torch.float64)
    curve = torch.stack([z, torch.cosh(z / 4)], -1)
    length = (curve[1:] - curve[:-1]).norm(dim=-1)
    stretch = torch.sqrt(1 + (torch.sinh(z / 4) / 4) ** 2)  # √det JᵀJ
    density = normal(z) / stretch
    close((0.5 * (density[1:] + density[:-1]) * length).sum(), 1.0)


# Likelihood


def bumps(x: Tensor) -> Tensor:
    """A target with two components, of weights 0.3 and 0.7."""
    return 0.3 * normal(x, -2, 0.5) + 0.7 * normal(x, 1, 1)


def kl(p: Callable[[Tensor], Tensor], q: Callable[[Tensor], Tensor]) -> Tensor:
    """E_p[log p − log q] on a line that holds nearly all of both masses."""
    return integral(lambda x: xlogx(p(x)) - p(x) * q(x).clamp(min=1e-300).log(), -12, 12)


def test_mean_nll_is_entropy_plus_kl_and_both_directions_are_positive() -> None:
    def q(x: Tensor) -> Tensor:
        return normal(x, 0.2, 1.6)

    nll = integral(lambda x: -bumps(x) * q(x).log(), -12, 12)
    entropy = -integral(lambda x: xlogx(bumps(x)), -12, 12)
    close(nll, entropy + kl(bumps, q))
    assert kl(bumps, q) > 0
    assert kl(q, bumps) > 0
    close(kl(q, q), 0)
    assert abs(kl(bumps, q) - kl(q, bumps)) > 0.01


def test_reverse_kl_with_a_density_up_to_a_factor() -> None:
    """For exp(−x⁴/4), whose integral is Γ(1/4)/√2."""
    log_z = math.lgamma(1 / 4) - 0.5 * math.log(2)

    def p(x: Tensor) -> Tensor:
        return torch.exp(-(x**4) / 4 - log_z)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.1, 0.5)

    close(integral(p, -6, 6), 1)
    loss = integral(lambda x: xlogx(q(x)) + q(x) * x**4 / 4, -12, 12)
    close(loss, kl(q, p) - log_z)
    assert loss > -log_z


def test_evidence_is_elbo_plus_kl_to_the_posterior() -> None:
    """Prior N(0, 1), one reading y = 1.3 of x with error 0.5: all laws are normal, y's too."""
    y, error = 1.3, 0.5

    def joint(x: Tensor) -> Tensor:
        return normal(x) * normal(number(y), x, error)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.8, 0.6)

    def log_likelihood(x: Tensor) -> Tensor:
        return normal(number(y), x, error).log()

    evidence = integral(joint, -9, 9)
    close(evidence, normal(number(y), 0, math.sqrt(1 + error**2)))
    elbo = integral(lambda x: q(x) * (joint(x).log() - q(x).log()), -5, 6)
    gap = integral(lambda x: q(x) * (q(x) * evidence / joint(x)).log(), -5, 6)
    close(evidence.log(), elbo + gap)
    assert gap > 0.1
    to_the_prior = integral(lambda x: q(x) * (q(x) / normal(x)).log(), -5, 6)
    close(elbo, integral(lambda x: q(x) * log_likelihood(x), -5, 6) - to_the_prior)


def test_a_part_of_the_mass_costs_at_most_its_log() -> None:
    def far_apart(x: Tensor) -> Tensor:
        return 0.3 * light(x) + 0.7 * normal(x, 3, 1)

    def light(x: Tensor) -> Tensor:
        return normal(x, -2, 0.5)

    def noisy(x: Tensor) -> Tensor:
        return 0.01 * bumps(x) + 0.99 * normal(x, 0, 3)

    x = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    for p in (bumps, far_apart):
        assert (p(x) >= 0.3 * light(x)).all()
        assert 0 < kl(light, p) < -math.log(0.3)
    close(kl(light, far_apart), -math.log(0.3), 1e-3)  # nothing of the other mode is near
    assert (noisy(x) >= 0.01 * bumps(x)).all()
    assert 0.3 < kl(bumps, noisy) < math.log(100)


def test_shares_of_the_mass_cost_no_more_than_the_divergence() -> None:
    def two(x: Tensor, share: float) -> Tensor:
        return (1 - share) * normal(x, -3, 0.6) + share * normal(x, 3, 0.6)

    def cost(s: float) -> float:
        return sum(share * math.log(share / 0.5) for share in (s, 1 - s))

    for s in (0.01, 0.2, 0.5):
        close(cost(s), math.log(2) + s * math.log(s) + (1 - s) * math.log(1 - s))
        reverse = kl(functools.partial(two, share=s), functools.partial(two, share=0.5))
        close(reverse, cost(s), 1e-4)  # the modes hardly touch: nothing else is to be paid
        other = kl(lambda x, s=s: two(x, s), lambda x: two(1.2 * x, 0.5) * 1.2)
        assert other > cost(s) + 0.01  # of both halves, the shapes differ too
    assert cost(1e-9) < math.log(2)
    close(cost(1e-9), math.log(2))


def test_the_floor_with_a_context_and_classes_told_apart() -> None:
    """Three classes, each with a normal law, and a model that has all of them slightly wrong."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    truth = [functools.partial(normal, mu=m, sigma=s) for m, s in [(-1, 0.5), (0.5, 1), (2, 0.7)]]
    model = [(-0.8, 0.6), (0.5, 1.2), (1.5, 0.7)]
    laws = [functools.partial(normal, mu=m, sigma=s) for m, s in model]

    def cross(p: Callable[[Tensor], Tensor], q: Callable[[Tensor], Tensor]) -> Tensor:
        return -integral(lambda x: p(x) * q(x).log(), -12, 12)

    def mean(parts: list[Tensor]) -> Tensor:
        return weights @ torch.stack(parts)

    floor = mean([cross(p, p) for p in truth])
    gap = mean([kl(p, q) for p, q in zip(truth, laws, strict=True)])
    close(mean([cross(p, q) for p, q in zip(truth, laws, strict=True)]), floor + gap)

    def marginal(x: Tensor) -> Tensor:
        return sum(w * p(x) for w, p in zip(weights, truth, strict=True))

    mutual = mean([kl(p, marginal) for p in truth])
    close(floor, cross(marginal, marginal) - mutual)
    # Bayes' rule, against how often a class stands where the model draws x in a small interval.
    generator = torch.Generator().manual_seed(0)
    classes = torch.multinomial(weights, 2_000_000, replacement=True, generator=generator)
    means, sds = torch.tensor(model).T
    x = means[classes] + sds[classes] * torch.randn(len(classes), generator=generator)
    here = classes[(x - 0.3).abs() < 0.02]
    seen = torch.bincount(here, minlength=3) / len(here)
    heights = torch.stack([q(number(0.3)) for q in laws]) * weights
    close(heights / heights.sum(), seen, 0.015)


def test_both_estimates_and_their_standard_errors() -> None:
    """Over many repetitions, each estimate's spread is the standard error that it states."""
    torch.manual_seed(0)
    x = torch.randn(2000, 500, dtype=torch.float64)
    log_q = normal(x, 0.5, 1.5).log()
    true = math.log(1.5) + (1 + 0.25) / (2 * 2.25) - 0.5
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    for terms in (normal(x).log() - log_q, -log_q - entropy):  # paired, unpaired
        assert abs(terms.mean() - true) < 4 * terms.std() / 1000
        stated = terms.std(-1).mean() / math.sqrt(500)
        close(terms.mean(-1).std(), stated, 0.1)


@pytest.mark.parametrize(("mu", "sigma"), [(0.02, 1.0), (0.0, 1.02), (-0.01, 0.99)])
def test_standard_error_of_the_paired_estimate_near_the_truth(mu: float, sigma: float) -> None:
    def d(x: Tensor) -> Tensor:
        return normal(x).log() - normal(x, mu, sigma).log()

    mean = integral(lambda x: normal(x) * d(x), -9, 9)
    variance = integral(lambda x: normal(x) * d(x) ** 2, -9, 9) - mean**2
    close(variance.sqrt() / (2 * mean).sqrt(), 1, 0.05)


def test_the_loss_of_a_batch_scatters() -> None:
    torch.manual_seed(0)
    log_q = normal(torch.randn(4000, 64, dtype=torch.float64), 0.5, 1.5).log()
    close(log_q.mean(-1).std() / (log_q.std() / math.sqrt(64)), 1, 0.05)


def test_kl_stays_the_same_under_one_map() -> None:
    def p(x: Tensor) -> Tensor:
        return normal(x, 0.3, 0.8)

    def q(x: Tensor) -> Tensor:
        return normal(x, -0.2, 1.1)

    before = integral(lambda x: p(x) * (p(x) / q(x)).log(), -8, 8)

    def after(y: Tensor) -> Tensor:  # both laws under y = eˣ
        pushed_p, pushed_q = p(y.log()) / y, q(y.log()) / y
        return pushed_p * (pushed_p / pushed_q).log()

    close(integral(lambda x: after(x.exp()) * x.exp(), -8, 8), before)  # dy = eˣ dx


def test_kl_in_data_and_in_base_space() -> None:
    """p = N(1, 2²) and x = 3z − 1: the normalised data (x + 1)/3 are N(2/3, (2/3)²)."""

    def p(x: Tensor) -> Tensor:
        return normal(x, 1, 2)

    def q(x: Tensor) -> Tensor:
        return normal(x, -1, 3)

    def pi(z: Tensor) -> Tensor:
        return 3 * p(3 * z - 1)  # the change of variables

    wide = (-30, 30)
    forward = integral(lambda x: xlogx(p(x)) - p(x) * q(x).log(), *wide)
    reverse = integral(lambda x: q(x) * (q(x).log() - p(x).log()), *wide)
    close(integral(lambda z: xlogx(pi(z)) - pi(z) * normal(z).log(), -9, 9), forward)
    close(integral(lambda z: normal(z) * (normal(z).log() - pi(z).log()), -9, 9), reverse)
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    close(pi(z), normal(z, 2 / 3, 2 / 3))


def test_what_is_left_is_total_correlation_and_the_shape_of_each_coordinate() -> None:
    """For a law on the plane that is not normal; and what two kinds of layer leave alone."""
    x, area = plane()

    def density(points: Tensor) -> Tensor:
        parts = [
            log_normal(points, mu, cov).exp() for mu, cov in ((2 * MU, COV), (-3 * MU_2, COV_2))
        ]
        return 0.4 * parts[0] + 0.6 * parts[1]

    def terms(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KL to the standard normal, total correlation, sum of the shapes."""
        side = math.isqrt(len(p))
        grid, step = p.reshape(side, side), math.sqrt(area)
        line = x.reshape(side, side, 2)[0, :, 1]
        marginals = grid.sum(1) * step, grid.sum(0) * step
        shape = sum((xlogx(m) - m * normal(line).log()).sum() * step for m in marginals)
        product = marginals[0].unsqueeze(1) * marginals[1]
        correlation = (xlogx(grid) - grid * product.clamp(min=1e-300).log()).sum() * area
        base = log_normal(x, torch.zeros(2).double(), torch.eye(2).double())
        return (xlogx(p) - p * base).sum() * area, correlation, shape

    whole, correlation, shape = terms(density(x))
    close(whole, correlation + shape)
    assert correlation > 0.01

    c, s = math.cos(0.6), math.sin(0.6)
    turned = terms(density(x @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)))
    close(turned[0], whole)
    assert abs(turned[1] - correlation) > 0.01

    scale = torch.tensor([1.3, 0.8], dtype=torch.float64)
    stretched = terms(density(x / scale) / scale.prod())  # an elementwise map
    close(stretched[1], correlation, 1e-4)
    assert abs(stretched[0] - whole) > 0.01


def test_the_loss_in_parts() -> None:
    made = some_transforms()
    layers = [made["TriangularAffine"], made["Elementwise"], made["Standardize"]]
    flow = minflow.Flow(minflow.Compose(*layers)).double()
    points = [torch.tensor([0.3, -1.1, 2.0], dtype=torch.float64)]
    log_dets = []
    for layer in layers:
        f = functools.partial(lambda point, layer: layer(point)[0], layer=layer)
        log_dets.append(log_det(f, points[-1]))
        points.append(layer(points[-1])[0])
    loss = 1.5 * math.log(2 * math.pi) + 0.5 * points[0].square().sum() + sum(log_dets)
    close(-flow.log_prob(points[-1]), loss)


def test_standardised_data_and_units() -> None:
    """A law on the plane by quadrature, in its own and in standard units; and exact pixels."""
    x, area = plane()
    m, s = MU, torch.tensor([1.4, 0.7], dtype=torch.float64)
    p = log_normal(x, MU, COV).exp()

    def log_q_y(y: Tensor) -> Tensor:
        return log_normal(y, torch.zeros(2).double(), torch.eye(2).double())

    raw = minflow.Standardize(2).double()
    raw.mean.copy_(m)
    raw.std.copy_(s)
    log_q_x = minflow.Flow(raw).double().log_prob(x)
    own = -(p * log_q_x).sum() * area
    close(own, -(p * log_q_y((x - m) / s)).sum() * area + s.log().sum())
    close((log_q_x.exp() * area).sum(), 1)

    # A uniform law on the 256 levels of each pixel needs eight bits a pixel.
    nats, pixels = 784 * math.log(256), 784
    close(nats / math.log(2), pixels * 8)
    close(nats / (pixels * math.log(2)), 8)
    divided = 0.0  # the NLL of the uniform law on (0, 1)
    close(divided / (pixels * math.log(2)) + 8, 8)


def test_whole_numbers_with_noise() -> None:
    """The bound, and that it is tight where the density is flat on the cell."""
    phi = torch.special.ndtr
    for n in range(-3, 4):
        probability = phi(number(n + 1.0)) - phi(number(float(n)))
        close(integral(normal, n, n + 1), probability)
        bound = integral(lambda x: -normal(x).log(), n, n + 1)
        assert bound > -probability.log() + 1e-3
    wide = phi(number(1 / 1000)) - phi(number(0.0))
    close(integral(lambda x: -normal(x, 0, 1000).log(), 0, 1), -wide.log())


def test_the_table_of_units_is_checked_row_by_row() -> None:
    pixels = "bits per dimension, of 8-bit pixels divided by 256"
    assert names("Likelihood") == {"bits", "bits per dimension", pixels}


# Checks of a density


def test_mass_by_importance_sampling() -> None:
    """p_z over a wider law: mean 1, and another one if a constant is missing."""
    torch.manual_seed(0)
    wider = torch.distributions.StudentT(5.0)
    z = wider.sample((200_000,)).double()
    ratio = normal(z) / wider.log_prob(z).exp()
    error = ratio.std() / math.sqrt(len(z))
    assert error < 2e-3
    assert abs(ratio.mean() - 1) < 4 * error
    missing = ratio * math.sqrt(2 * math.pi)
    assert abs(missing.mean() - 1) > 100 * error


@pytest.mark.parametrize("a", [(0.0, 0.0), (1.5, -0.7)])
def test_steins_identity(a: tuple[float, float]) -> None:
    """By quadrature with slopes from autograd; for a density that is not normal."""
    x, area = plane()
    x = x.clone().requires_grad_()
    parts = [log_normal(x, mu, cov) for mu, cov in ((MU, COV), (MU_2, COV_2))]
    log_q = torch.stack(parts).logsumexp(0) - math.log(2)
    (slope,) = torch.autograd.grad(log_q.sum(), x)
    values = ((x.detach() - torch.tensor(a)) * slope).sum(-1)
    q = log_q.detach().exp()
    close((q * values).sum() * area, -2)
    # Samples of a wider law: the mean is another.
    other = log_normal(x.detach(), MU, 2 * COV).exp()
    assert (other * values).sum() * area < -2.5


# Training


def test_learning_rate_as_the_sheet_writes_it() -> None:
    for warmup in (0, 7):
        plan = Plan(50, 1, 0.3, warmup, None, "stop", 0, None, None, 1)
        for t in range(50):
            if t < warmup:
                rate = 0.3 * (t + 1) / (warmup + 1)
            else:
                rate = 0.3 / 2 * (1 + math.cos(math.pi * (t - warmup) / (50 - warmup)))
            close(plan.rate(t), rate)


def test_annealing_as_the_sheet_writes_it() -> None:
    """The weights; and the losses of a run in which nothing moves, at the points it has drawn."""
    plan = Plan(20, 1, 0.1, 0, None, "stop", 0, None, None, 1, anneal=8)
    for t in range(20):
        close(plan.weight(t), 1 / 100 + 99 / 100 * t / 8 if t < 8 else 1)
    flow = minflow.Flow(minflow.Standardize(1).double())  # nothing moves: q stays N(0, 1)
    flow.transform.idle = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    drawn: list[Tensor] = []

    def log_density(x: Tensor) -> Tensor:
        drawn.append(x.squeeze(-1))
        return -(x.squeeze(-1) ** 4) + 0 * flow.transform.idle

    history = minflow.fit_energy(flow, log_density, steps=3, batch_size=50, anneal=2)
    assert len(history.loss) == 3
    for loss, x, weight in zip(history.loss, drawn, (0.01, 0.505, 1), strict=False):
        close(loss, (normal(x).log() + weight * x**4).mean())


@pytest.mark.parametrize("clip", [0.5, 5.0, 50.0])
def test_clipping_as_the_sheet_writes_it(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of fit, with plain descent in Adam's place, moves the weights by −η g."""
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused=None: torch.optim.SGD(p, lr))
    data = torch.tensor([[6.0], [4.0]], dtype=torch.float64)
    flow = minflow.Flow(minflow.Elementwise(1, minflow.Affine())).double()
    weights = flow.transform.params
    (g,) = torch.autograd.grad(-flow.log_prob(data).mean(), weights)
    before = weights.detach().clone()
    minflow.fit(flow, data, steps=1, lr=1e-3, clip=clip)
    size = math.hypot(5, 25)  # ∂/∂t = −mean x, ∂/∂s = 1 − mean x² at the start
    close(g.norm(), size)
    close((before - weights) / 1e-3, g * min(1, clip / size), 1e-4)


# The library's maps

S, T = 0.7, -0.4
SCALAR = {
    # name: the map, its parameters, f, f⁻¹ and log dx/dz as the sheet writes them, some z
    "Affine": (
        minflow.Affine(), [T, S],
        lambda z: z * math.exp(soft(S)) + T,
        lambda x: (x - T) * math.exp(-soft(S)),
        lambda z: torch.full_like(z, soft(S)), (-3.0, 3.0),
    ),
    "Additive": (
        minflow.Additive(), [T],
        lambda z: z + T,
        lambda x: x - T,
        torch.zeros_like, (-3.0, 3.0),
    ),
    "LeakyReLU": (
        minflow.LeakyReLU(), [S],
        lambda z: torch.where(z >= 0, z, z * math.exp(soft(S))),
        lambda x: torch.where(x >= 0, x, x * math.exp(-soft(S))),
        lambda z: torch.where(z >= 0, 0.0, soft(S)).to(z), (-3.0, 3.0),
    ),
    "Sigmoid": (
        minflow.Sigmoid(), [],
        lambda z: 1 / (1 + torch.exp(-z)),
        lambda x: x.log() - (1 - x).log(),
        lambda z: torch.sigmoid(z).log() + (1 - torch.sigmoid(z)).log(), (-3.0, 3.0),
    ),
    "Logit": (
        minflow.Logit(), [],
        lambda z: z.log() - (1 - z).log(),
        lambda x: 1 / (1 + torch.exp(-x)),
        lambda z: -z.log() - (1 - z).log(), (0.05, 0.95),
    ),
}  # fmt: skip


def soft(r: float) -> float:
    return 5 * math.tanh(r / 5)


def parameters(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


@pytest.mark.parametrize("name", SCALAR)
def test_scalar_map_as_the_sheet_writes_it(name: str) -> None:
    scalar_map, values, f, f_inverse, log_slope, (low, high) = SCALAR[name]
    params = parameters(values)
    z = torch.linspace(low, high, 12, dtype=torch.float64)
    x = f(z)
    close(scalar_map.forward(z, params)[0], x)
    close(scalar_map.inverse(x, params)[0], f_inverse(x))
    close(f_inverse(x), z)
    close(scalar_map.forward(z, params)[1], log_slope(z))
    close(log_slope(z), jacobian(f, z).diagonal().log())
    close(scalar_map.inverse(x, params)[1], -log_slope(z))


def test_mixture_cdf_as_the_sheet_writes_it() -> None:
    torch.manual_seed(0)
    scalar_map = minflow.MixtureCDF(components=3)
    params = torch.randn(9, 1, dtype=torch.float64)
    log_weights, means, log_scales = scalar_map.mixture(params)

    def cdf(x: Tensor) -> Tensor:
        return (log_weights.exp() * torch.sigmoid((x - means) / log_scales.exp())).sum(0)

    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    z = cdf(x).log() - (1 - cdf(x)).log()
    slope = jacobian(cdf, x).diagonal()
    close(scalar_map.inverse(x, params)[0], z)
    close(scalar_map.forward(z, params)[0], x)
    close(scalar_map.forward(z, params)[1], cdf(x).log() + (1 - cdf(x)).log() - slope.log())
    close(log_weights.exp().sum(), 1.0)


def test_monotone_as_the_sheet_writes_it() -> None:
    k = 3
    scalar_map = minflow.Monotone(k)
    params = points(k**2 + 4 * k + 2, 1) / 2
    free = params.squeeze(-1)
    t, rho, alpha, nu, beta, gamma = free[: 4 * k + 2].split([1, 1, k, k, k, k])
    omega = free[4 * k + 2 :].reshape(k, k)
    u = torch.tensor([-2 / 3, 0.0, 2 / 3], dtype=torch.float64)  # (2j − 1)/K − 1

    def h(r: Tensor) -> Tensor:
        return 3 * torch.tanh(r / 3)

    s = math.log(0.9) + h(rho)
    a, v = h(alpha).exp() / 4, h(nu).exp() / (2 * k)
    b, c = beta + u / 2, gamma + u / 4
    w = omega.exp() / omega.exp().sum(1, keepdim=True)

    def units(x: Tensor) -> Tensor:
        return c + torch.tanh(x.unsqueeze(-1) * a + b) @ w.mT

    def f_inverse(x: Tensor) -> Tensor:
        return s.exp() * x + t + torch.tanh(units(x)) @ v

    x = torch.linspace(-6, 6, 13, dtype=torch.float64)
    z = f_inverse(x)
    inner = (1 - torch.tanh(x.unsqueeze(-1) * a + b) ** 2) * a
    slope = s.exp() + ((1 - torch.tanh(units(x)) ** 2) * (inner @ w.mT)) @ v
    close(slope, jacobian(f_inverse, x).diagonal())
    assert (slope > s.exp()).all()
    close(scalar_map.inverse(x, params)[0], z)
    close(scalar_map.inverse(x, params)[1], slope.log())
    close(scalar_map.forward(z, params)[0], x)
    close(scalar_map.forward(z, params)[1], -slope.log())
    assert ((z - t - v.sum()) * (-s).exp() < x).all()
    assert (x < (z - t + v.sum()) * (-s).exp()).all()


@pytest.mark.parametrize("name", ["Affine", "Sigmoid", "MixtureCDF"])
def test_reversed_as_the_sheet_writes_it(name: str) -> None:
    given = getattr(minflow, name)()
    turned = minflow.Reversed(given)
    params = points(given.num_params, 1)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    z, log_slope = given.forward(x, params)  # the given map's g, from x to z
    close(turned.inverse(x, params)[0], z)
    close(turned.inverse(x, params)[1], log_slope)
    close(turned.forward(z, params)[0], x)
    close(turned.forward(z, params)[1], -log_slope)
    own, other = minflow.Elementwise(2, given), minflow.Elementwise(2, turned)
    interval = minflow.transform.interval
    assert interval(other.domain) == interval(own.codomain)
    assert interval(other.codomain) == interval(own.domain)


def test_soft_bound_as_the_sheet_writes_it() -> None:
    bounds = minflow.Affine().bound, minflow.LeakyReLU().bound, minflow.TriangularAffine.BOUND
    assert bounds == (5, 5, 5)
    assert minflow.Monotone().bound == 3
    close(soft_bound(number(3.0), 5), 5 * math.tanh(3 / 5))
    assert soft_bound(number(1e6), 5) == 5


# name: the map, half its box, and whether its ends are one point
SPLINES = {
    "Spline": (minflow.Spline(bins=4, bound=2.5), 2.5, False),
    "CircularSpline": (minflow.CircularSpline(bins=4), math.pi, True),
}


def raw_knots(name: str) -> tuple[Tensor, Tensor]:
    """Parameters of a spline of 4 bins, and its knots with their slopes, as the sheet has them.

    Returns (num_params, 1) and (3, 5).
    """
    scalar_map, half, circular = SPLINES[name]
    phi = float(re.search(r"\\phi = ([\d.]+)", PAGE)[1])
    params = points(scalar_map.num_params, 1)
    free = params.squeeze(-1)

    def edges(u: Tensor) -> Tensor:
        sizes = 2 * half / 4 * (phi + (1 - phi) * 4 * u.exp() / u.exp().sum())
        return torch.cat([number(-half).reshape(1), -half + sizes.cumsum(0)])

    x, z = edges(free[:4]), edges(free[4:8])
    s = z.diff() / x.diff()
    if circular:
        s = torch.cat([s[-1:], s])
    rho = free[8:12] if circular else free[8:11]
    d = 2 * s[:-1] * s[1:] / (s[:-1] + s[1:]) * torch.exp(3 * torch.tanh(rho / 3))
    one = torch.ones(1, dtype=torch.float64)
    d = torch.cat([d, d[:1]]) if circular else torch.cat([one, d, one])
    return params, torch.stack([x, z, d])


def quotient(x: Tensor, knots: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """z and dz/dx in bin k, as the sheet writes them."""
    (x0, x1), (z0, z1), (d0, d1) = knots[:, k : k + 2]
    w, h = x1 - x0, z1 - z0
    s, xi = h / w, (x - x0) / w
    bottom = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
    assert (bottom >= s / 2).all()
    top = d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2
    return z0 + h * (s * xi**2 + d0 * xi * (1 - xi)) / bottom, s**2 * top / bottom**2


def root_of_the_quadratic(z: Tensor, knots: Tensor, k: int) -> Tensor:
    (x0, x1), (z0, z1), (d0, d1) = knots[:, k : k + 2]
    w, h = x1 - x0, z1 - z0
    s, eta = h / w, (z - z0) / h
    b = d0 - eta * (d0 + d1 - 2 * s)
    a, c = s - b, -eta * s
    xi = -2 * c / (b + (b**2 - 4 * a * c).sqrt())
    close(a * xi**2 + b * xi + c, torch.zeros_like(xi))
    assert ((xi >= 0) & (xi <= 1 + 1e-12)).all()
    return x0 + w * xi


@pytest.mark.parametrize("name", SPLINES)
def test_spline_as_the_sheet_writes_it(name: str) -> None:
    scalar_map, half, circular = SPLINES[name]
    params, knots = raw_knots(name)
    edges, slopes = scalar_map.knots(params)
    for said, made in zip(knots, [*edges, slopes], strict=True):
        close(made.squeeze(-1), said)
    turn = params[-1] if circular else number(0.0)

    def less_whole_turns(angle: Tensor) -> Tensor:
        if not circular:
            return angle
        return torch.where(
            angle > half, angle - 2 * half, torch.where(angle < -half, angle + 2 * half, angle)
        )

    for k in range(4):
        left, right = knots[0, k], knots[0, k + 1]
        x = torch.linspace(left + 1e-6, right - 1e-6, 9, dtype=torch.float64)
        z, slope = quotient(x, knots, k)
        close(slope, jacobian(lambda x, k=k: quotient(x, knots, k)[0], x).diagonal())
        assert (slope > 0).all()
        close(root_of_the_quadratic(z, knots, k), x)
        turned = less_whole_turns(x + turn)
        close(scalar_map.inverse(turned, params)[0], z)
        close(scalar_map.inverse(turned, params)[1], slope.log())
        close(scalar_map.forward(z, params)[0], turned)
        close(scalar_map.forward(z, params)[1], -slope.log())
        for end in (k, k + 1):  # the neighbours meet in value and in slope
            value, slope = quotient(knots[0, end], knots, k)
            close(value, knots[1, end])
            close(slope, knots[2, end])
    if not circular:
        outside = torch.tensor([-9.0, -2.6, 2.6, 40.0], dtype=torch.float64)
        for direction in (scalar_map.forward, scalar_map.inverse):
            value, log_slope = direction(outside, params)
            close(value, outside)
            close(log_slope, torch.zeros(4))


def test_the_root_of_the_quadratic_where_it_is_a_straight_line() -> None:
    """With a = 0 the quadratic is none: here the slopes are the chord's, and z is straight."""
    knots = torch.tensor([[0.0, 2.0], [0.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
    x = torch.linspace(0, 2, 9, dtype=torch.float64)
    close(quotient(x, knots, 0)[0], x / 2)
    close(root_of_the_quadratic(x / 2, knots, 0), x)


COUPLINGS = {
    # name on the sheet: the map, its numbers P, and how it moves x_b for given parameters
    "Additive()": (minflow.Additive(), 1, lambda z, p: z + p[0]),
    "Affine()": (minflow.Affine(), 2, lambda z, p: z * (5 * (p[1] / 5).tanh()).exp() + p[0]),
    "MixtureCDF(K)": (minflow.MixtureCDF(4), 12, None),
    "Monotone(K)": (minflow.Monotone(4), 34, None),
    "Spline(K)": (minflow.Spline(4), 11, None),
    "CircularSpline(K)": (minflow.CircularSpline(4), 13, None),
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("name", COUPLINGS)
def test_coupling_as_the_sheet_writes_it(name: str, dim: int, flip: bool) -> None:
    scalar_map, numbers, move = COUPLINGS[name]
    assert scalar_map.num_params == numbers
    torch.manual_seed(0)
    layer = minflow.Coupling(dim, scalar_map, hidden=(8,), flip=flip).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    d = dim // 2
    a, b = (slice(d, None), slice(0, d)) if flip else (slice(0, d), slice(d, None))
    z = torch.linspace(-1.5, 1.2, dim, dtype=torch.float64)
    x, value = layer(z)
    assert torch.equal(x[a], z[a])
    seen = torch.cat([z[a].cos(), z[a].sin()]) if name == "CircularSpline(K)" else z[a]
    params = (layer.params + layer.net(seen)).reshape(numbers, -1)
    assert params.shape[-1] == len(z[b])
    moved, log_slopes = scalar_map.forward(z[b], params)
    close(x[b], moved)
    close(value, log_slopes.sum())
    if move is not None:
        close(x[b], move(z[b], params))
    close(layer.inverse(x)[0], z)
    close(scalar_map.inverse(x[b], params)[0], z[b])
    whole = jacobian(lambda z: layer(z)[0], z)
    close(whole[a, a], torch.eye(len(z[a])))
    close(whole[a, b], torch.zeros(len(z[a]), len(z[b])))
    close(whole[b, b], torch.diag(log_slopes.exp()))
    assert whole[b, a].abs().min() > 0
    close(value, torch.linalg.slogdet(whole).logabsdet)


def moved_by_affine(v: Tensor, p: Tensor) -> Tensor:
    return v * (5 * torch.tanh(p[1] / 5)).exp() + p[0]


AUTOREGRESSIVE = {
    # name on the sheet: the numbers P for K = 4, and x of z or z of x for given parameters
    "Autoregressive(D, Affine())": (2, moved_by_affine, None),
    "Autoregressive(D, Reversed(Affine()))": (2, None, moved_by_affine),
    "Inverse(Autoregressive(D, Reversed(Affine())))": (2, moved_by_affine, None),
    "Autoregressive(D, Spline(K))": (3 * 4 - 1, None, None),
    "Autoregressive(D, MixtureCDF(K))": (3 * 4, None, None),
    "Autoregressive(D, Monotone(K))": (4**2 + 4 * 4 + 2, None, None),
}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)], ids=str)
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_autoregressive_as_the_sheet_writes_it(name: str, order: tuple[int, ...]) -> None:
    """The layer is made from its name on the sheet; the parameters from what is before alone."""
    numbers, forward, inverse = AUTOREGRESSIVE[name]
    made_so = functools.partial(minflow.Autoregressive, hidden=(24, 24), order=order)
    places = {"Autoregressive": made_so, "D": 4, "K": 4}
    torch.manual_seed(0)
    layer = eval(name, vars(minflow) | places).double()
    turned = isinstance(layer, minflow.Inverse)
    inner = layer.transform if turned else layer
    scalar_map = inner.scalar_map
    assert scalar_map.num_params == numbers
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    z = torch.linspace(-1.5, 1.2, 4, dtype=torch.float64)
    x, value = layer(z)
    close(layer.inverse(x)[0], z)
    close(layer.inverse(x)[1], -value)
    seen, other = (z, x) if turned else (x, z)
    log_slopes = []
    for p, i in enumerate(order):
        before = torch.zeros(4, dtype=torch.float64)
        before[list(order[:p])] = seen[list(order[:p])]  # what comes later is not needed
        theta = (inner.params + inner.net(before))[:, i]
        moved, log_slope = scalar_map.forward(other[i], theta)
        close(seen[i], moved)
        log_slopes.append(-log_slope if turned else log_slope)
        if forward is not None:
            close(x[i], forward(z[i], theta))
        if inverse is not None:
            close(z[i], inverse(x[i], theta))
    close(value, sum(log_slopes))
    whole, *elsewhere = (
        jacobian(lambda z: layer(z)[0], start)[list(order)][:, list(order)]
        for start in (z, z / 2, -z, z + 1)
    )
    for one in (whole, *elsewhere):
        close(one.triu(1), torch.zeros(4, 4))
    depends = sum(one.abs() for one in (whole, *elsewhere)) > 0  # a ReLU may rest at one point
    assert torch.equal(depends, torch.ones(4, 4).tril().bool())
    close(whole.diagonal().log().sum(), value)


@pytest.mark.parametrize("make", [minflow.maf, minflow.iaf], ids=["maf", "iaf"])
def test_the_affine_layers_of_maf_and_iaf_as_the_sheet_writes_them(make: Callable) -> None:
    """z_i = x_i e^s + t for maf, x_i = z_i e^s + t for iaf; |s| < 2."""
    torch.manual_seed(0)
    layer, mix = make(3, layers=1, hidden=(8,)).double().transform
    assert isinstance(mix, minflow.LU) and not mix.permute
    inner = layer.transform if make is minflow.iaf else layer
    torch.nn.init.normal_(inner.params, std=3)
    given = points(3)
    result, value = layer(given) if make is minflow.iaf else layer.inverse(given)
    t, raw = inner.params + inner.net(given)
    s = 2 * torch.tanh(raw / 2)
    close(result, given * s.exp() + t)
    close(value, s.sum())


def test_nsf_ar_has_the_spline_of_the_sheet() -> None:
    layer, *_ = minflow.nsf_ar(3, layers=1, bins=5, bound=3.0).transform
    assert isinstance(layer, minflow.Autoregressive)
    assert layer.scalar_map == minflow.Spline(5, 3.0)


def test_every_positive_density_is_one_map_of_conditional_cdfs() -> None:
    """For a mixture on the plane, of which all conditional CDFs are known."""
    phi = torch.special.ndtr
    weights, means, sds = [0.25, 0.75], [(0.0, 1.0), (2.0, -1.0)], [(1.0, 0.3), (0.5, 0.6)]
    parts = list(zip(weights, means, sds, strict=True))

    def cdfs(x: Tensor) -> Tensor:
        first = torch.stack([w * normal(x[0], m[0], s[0]) for w, m, s in parts])
        given = first / first.sum()
        return torch.stack(
            [
                sum(w * phi((x[0] - m[0]) / s[0]) for w, m, s in parts),
                sum(
                    r * phi((x[1] - m[1]) / s[1]) for r, (_, m, s) in zip(given, parts, strict=True)
                ),
            ]
        )

    def f_inverse(x: Tensor) -> Tensor:
        return torch.special.ndtri(cdfs(x))

    for x in torch.tensor([[0.1, 0.9], [1.4, -0.8], [1.0, 0.3]], dtype=torch.float64):
        marginal, given = jacobian(cdfs, x).diagonal()
        close(marginal * given, mixture_parts(x).sum())  # the chain rule
        whole = jacobian(f_inverse, x)
        assert whole[0, 1] == 0
        assert whole[1, 0] != 0
        log_q = normal(f_inverse(x)).log().sum() + torch.linalg.slogdet(whole).logabsdet
        close(log_q, mixture_parts(x).sum().log())


def test_with_a_logistic_base_each_conditional_is_a_mixture() -> None:
    torch.manual_seed(0)
    layer = minflow.Autoregressive(3, minflow.MixtureCDF(4), hidden=(8,)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = points(3)
    z, value = layer.inverse(x)
    log_q = (torch.sigmoid(z).log() + torch.sigmoid(-z).log()).sum() + value
    log_weights, means, log_scales = layer.scalar_map.mixture(layer.params + layer.net(x))
    u = (x - means) / log_scales.exp()
    pieces = log_weights.exp() * torch.sigmoid(u) * torch.sigmoid(-u) / log_scales.exp()
    close(log_q, pieces.sum(0).log().sum())


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_masks_as_the_sheet_writes_them(context_dim: int, seed: int | None) -> None:
    order, features, outputs = (2, 0, 3, 1), 2, 3
    net = MaskedMLP(4, outputs, (9, 7), context_dim, features, order, seed)
    positions = [order.index(d) + 1 for d in range(4)]
    told, degrees = [0] * context_dim, [positions * features]  # each layer sees the context
    for numbers in net.sizes[1:-1]:  # hidden units, sorted: how many have each degree
        degrees.append([m for m, many in enumerate(numbers) for _ in range(many)])
        assert degrees[-1][-1] <= 3
        assert degrees[-1][0] >= (0 if context_dim else 1)
    degrees.append([p - 1 for p in positions] * outputs)
    ways, paths = torch.eye(len(told + degrees[0])).tensor_split([context_dim])
    for layer, m_j, m_k in zip(net.layers, degrees[:-1], degrees[1:], strict=True):
        mask = torch.tensor([[float(k >= j) for j in told + m_j] for k in m_k])
        seen = points(5, len(told + m_j)).float()
        bias = 0 if layer.bias is None else layer.bias
        close(layer(seen), seen @ (layer.weight * mask).mT + bias)
        paths = mask @ torch.cat([ways, paths])
    for row, to in zip(paths, positions * outputs, strict=True):
        for number, start in zip(row[context_dim:], positions * features, strict=True):
            if seed is None:
                assert (number > 0) == (start < to)
            else:
                assert number == 0 or start < to


class Products(TorchDispatchMode):
    """Counts the multiplications in products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if func.overloadpacket.__name__ in ("mm", "addmm"):
            left, right = args[-2:]
            self.count += left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dim", [2, 5, 20])
def test_cost_as_the_sheet_writes_it(dim: int) -> None:
    """The products of each way; and Jacobi's iteration, which makes a pass in each step."""
    torch.manual_seed(0)
    layer = minflow.Autoregressive(dim, minflow.Affine(), hidden=(24, 24)).double()
    torch.nn.init.normal_(layer.params)
    weights = sum(part.weight.numel() for part in layer.net.layers)
    ones = sum(int(part.mask.sum()) for part in layer.net.layers)
    assert ones < weights
    z = points(7, dim)
    with Products() as once:
        x = layer(z)[0].detach()
    assert once.count == 7 * ones
    with Products() as in_place, torch.no_grad():
        close(layer(z)[0], x)
    assert in_place.count == 7 * ones
    with Products() as one_pass:
        close(layer.inverse(x)[0], z)
    assert one_pass.count == 7 * weights
    guess = points(7, dim) - 1
    with Products() as passes:
        for k in range(dim):
            assert k > 1 or (guess - x).abs().max() > 1e-3  # one pass is not enough
            params = (layer.params + layer.net(guess)).movedim(-2, 0)
            guess = layer.scalar_map.forward(z, params)[0].detach()
            close(guess[:, : k + 1], x[:, : k + 1])
    assert passes.count == dim * 7 * weights


def test_the_table_of_costs_is_checked_row_by_row() -> None:
    ways = {"$x \\to z$", "$z \\to x$, a pass for each coordinate", "$z \\to x$, each unit once"}
    assert {row[0] for row in rows("The library's maps") if len(row) == 3} == ways


@pytest.mark.parametrize("first", [1, 2])
def test_what_one_affine_layer_leaves_of_the_banana(first: int) -> None:
    """The formula is the divergence to the layer with p's own moments, and none is nearer."""
    x1 = torch.linspace(-7, 50, 2001, dtype=torch.float64)
    x2 = torch.linspace(-14, 14, 1001, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(x1, x2, indexing="ij"), -1)
    log_p = minflow.data.Banana(sigma=2).log_prob(x)
    other = 1 if first == 1 else 0  # which dimension of the grid the second coordinate is
    lines = [x1, x2][first - 1], [x1, x2][2 - first]
    steps = [line[1] - line[0] for line in lines]
    area = steps[0] * steps[1]
    p = log_p.exp()
    close((p * area).sum(), 1)
    marginal = p.sum(other) * steps[1]
    mean = (marginal * lines[0]).sum() * steps[0]
    variance = (marginal * (lines[0] - mean) ** 2).sum() * steps[0]
    later = x[..., 2 - first]
    given = p / marginal.unsqueeze(other).clamp(min=1e-300)
    means = (given * later).sum(other, keepdim=True) * steps[1]
    variances = (given * (later - means) ** 2).sum(other, keepdim=True) * steps[1]
    variances = variances.clamp(min=1e-3)  # where p is zero in float64

    def half_log(v: Tensor) -> Tensor:
        return 0.5 * torch.log(2 * math.pi * math.e * v)

    entropy = math.log(2 * math.pi * math.e * 2)
    formula = half_log(variance) + (p * half_log(variances)).sum() * area - entropy

    def gap(*factors: float) -> Tensor:
        earlier = x[..., first - 1]
        q = normal_log(earlier, mean, factors[0] * variance)
        q = q + normal_log(later, means, factors[1] * variances)
        return (p * (log_p - q)).sum() * area

    close(gap(1, 1), formula)
    for factors in ((0.95, 1), (1.05, 1), (1, 0.95), (1, 1.05)):
        assert gap(*factors) > formula + 1e-4
    said = re.search(r"`Banana\(sigma=2\)` it is (\S+) with \$x_2\$ first, and (\S+) with", PAGE)
    assert abs(formula - float(said[3 - first])) < 6e-5


def normal_log(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((x - mean) ** 2 / variance + torch.log(2 * math.pi * variance))


def test_causal_attention_as_the_sheet_writes_it() -> None:
    x = points(4, 3)  # four coordinates, each made into three numbers
    to_q, to_k, to_v = points(3, 3, 2)
    mask = torch.full((4, 4), -math.inf, dtype=torch.float64).triu(1)

    def attend(x: Tensor) -> Tensor:
        q, k, v = x @ to_q, x @ to_k, x @ to_v
        return torch.softmax(q @ k.mT / math.sqrt(2) + mask, -1) @ v

    depends = jacobian(attend, x).abs().sum((1, 3)) > 0
    assert torch.equal(depends, torch.ones(4, 4).tril().bool())
    mine = torch.nn.functional.scaled_dot_product_attention(
        *(x @ to for to in (to_q, to_k, to_v)), is_causal=True
    )
    close(attend(x), mine)


@pytest.mark.parametrize("make", [minflow.realnvp, minflow.glow], ids=["realnvp", "glow"])
def test_the_affine_coupling_of_the_ready_made_flows_is_turned_round(make: Callable) -> None:
    torch.manual_seed(0)
    first, *_ = make(3, layers=1, hidden=(8,)).double().transform
    layer = first.transform
    assert isinstance(first, minflow.Inverse)
    assert not layer.flip
    torch.nn.init.normal_(layer.params, std=3)
    x = points(3)
    t, raw = (layer.params + layer.net(x[:1])).reshape(2, 2)
    s = 2 * torch.tanh(raw / 2)
    z, value = first.inverse(x)
    close(z, torch.cat([x[:1], x[1:] * s.exp() + t]))
    close(value, s.sum())


def test_flow_plus_plus_adds_a_scale_and_a_shift() -> None:
    """One map after the other is a map: the log-slopes add."""
    params = points(14, 1)
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)
    first, slope = minflow.MixtureCDF(4).forward(z, params[:12])
    second, scale = minflow.Affine().forward(first, params[12:])

    def both(z: Tensor) -> Tensor:
        middle = minflow.MixtureCDF(4).forward(z, params[:12])[0]
        return minflow.Affine().forward(middle, params[12:])[0]

    close(second, both(z))
    close(slope + scale, jacobian(both, z).diagonal().log())


@pytest.mark.parametrize("parity", [0, 1])
def test_a_mask_as_the_sheet_writes_it(parity: int) -> None:
    """A checkerboard on 3 × 4 pixels, and what a layer with it does to them."""
    i, j = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    m = ((i + j) % 2 == parity).double().flatten()
    first, second = points(12, 12), points(12, 12) / 7

    def s(u: Tensor) -> Tensor:
        return torch.tanh(first @ u)

    def f(z: Tensor) -> Tensor:
        t = torch.sin(second @ (m * z))
        return m * z + (1 - m) * (z * s(m * z).exp() + t)

    z = points(12)
    close(log_det(f, z), ((1 - m) * s(m * z)).sum())
    x = f(z)
    assert torch.equal(x[m == 1], z[m == 1])
    t = torch.sin(second @ (m * x))
    close(m * x + (1 - m) * (x - t) * (-s(m * x)).exp(), z)
    # Half of the channels at every pixel: the same formula, with another m.
    channels = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(3, 4).flatten()
    assert channels.reshape(3, 4).sum(-1).unique().tolist() == [2.0]


def test_a_convolution_of_one_pixel_as_the_sheet_writes_it() -> None:
    height, width, channels = 2, 3, 3
    layer = some_transforms()["LU"]
    matrix = layer.matrix()
    z = points(channels, height, width)

    def convolve(z: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(z[None], matrix.detach()[:, :, None, None])[0]

    x = convolve(z)
    close(x[:, 1, 2], matrix @ z[:, 1, 2])
    size = channels * height * width
    whole = jacobian(convolve, z).reshape(size, size)
    close(
        torch.linalg.slogdet(whole).logabsdet,
        height * width * torch.linalg.slogdet(matrix).logabsdet,
    )
    again, log_dets = layer(z.movedim(0, -1))  # the channels last: each pixel is a point
    close(again.movedim(-1, 0), x)
    close(log_dets.sum(), torch.linalg.slogdet(whole).logabsdet)


COLUMNS = {
    # name on the sheet: the ends, x, z and log dx/dz
    "both ends, $a < x < b$": (
        (-1.0, 2.5),
        lambda z: -1 + 3.5 * torch.sigmoid(z),
        lambda x: (x + 1).log() - (2.5 - x).log(),
        lambda z: math.log(3.5) + torch.sigmoid(z).log() + torch.sigmoid(-z).log(),
    ),
    "a lower end, $a < x$": (
        (-1.0, math.inf), lambda z: -1 + z.exp(), lambda x: (x + 1).log(), lambda z: z
    ),
    "an upper end, $x < b$": (
        (-math.inf, 2.5), lambda z: 2.5 - (-z).exp(), lambda x: -(2.5 - x).log(), lambda z: -z
    ),
    "no end": ((-math.inf, math.inf), lambda z: z, lambda x: x, torch.zeros_like),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_with_ends_as_the_sheet_writes_it(name: str) -> None:
    (lower, upper), f, f_inverse, log_slope = COLUMNS[name]
    layer = minflow.Support([lower], [upper])
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)
    x, value = layer(z.unsqueeze(-1))
    close(x.squeeze(-1), f(z))
    close(value, log_slope(z))
    close(log_slope(z), jacobian(f, z).diagonal().log())
    assert ((lower < x) & (x < upper)).all()
    back, value = layer.inverse(x)
    close(back.squeeze(-1), z)
    close(f_inverse(x).squeeze(-1), z)
    close(value, -log_slope(z))


def some_transforms() -> dict[str, minflow.Transform]:
    torch.manual_seed(0)
    made = {
        "Elementwise": minflow.Elementwise(3, minflow.Affine()),
        "TriangularAffine": minflow.TriangularAffine(3),
        "Householder": minflow.Householder(3),
        "Standardize": minflow.Standardize.of(torch.randn(20, 3) * torch.tensor([0.5, 1, 4]) + 1),
        "Planar": minflow.Planar(3),
        "Radial": minflow.Radial(3),
        "Sylvester": minflow.Sylvester(3, rank=2),
        "Coupling": minflow.Coupling(3, minflow.Affine(), hidden=(8,)),
        "Autoregressive": minflow.Autoregressive(3, minflow.Affine(), hidden=(8,)),
        "ActNorm": minflow.ActNorm(3),
        "Permute": minflow.Permute.of([2, 0, 1]),
        "LU": minflow.LU(3),
        "Support": minflow.Support([0.0, -math.inf, 1.0], [math.inf, 2.0, 4.0]),
        "Compose": minflow.Compose(
            minflow.TriangularAffine(3), minflow.Elementwise(3, minflow.LeakyReLU())
        ),
        "Inverse": minflow.Inverse(minflow.TriangularAffine(3)),
    }
    for transform in made.values():
        transform.double()
        for parameter in transform.parameters():
            torch.nn.init.normal_(parameter)
    return made


def test_transforms_as_the_sheet_writes_them() -> None:
    made = some_transforms()
    z = torch.tensor([0.3, -1.1, 2.0], dtype=torch.float64)
    for transform in made.values():
        x, value = transform.forward(z)
        close(value, log_det(lambda point, t=transform: t.forward(point)[0], z))
        close(transform.inverse(x)[0], z)
    layer = made["Elementwise"]
    close(layer.forward(z)[1], layer.scalar_map.forward(z, layer.params)[1].sum())
    triangular = made["TriangularAffine"]
    matrix = triangular.matrix()
    close(triangular.forward(z)[0], matrix @ z + triangular.shift)
    close(triangular.inverse(z)[0], torch.linalg.inv(matrix) @ (z - triangular.shift))
    close(triangular.forward(z)[1], matrix.diagonal().log().sum())
    assert matrix.triu(1).count_nonzero() == 0
    units = made["Standardize"]
    close(units.forward(z)[0], units.mean + units.std * z)
    close(units.inverse(z)[0], (z - units.mean) / units.std)
    close(units.forward(z)[1], units.std.log().sum())
    norm = made["ActNorm"]
    m, s = norm.shift, norm.log_scale.exp()
    close(norm.forward(z)[0], m + s * z)
    close(norm.inverse(z)[0], (z - m) / s)
    close(norm.forward(z)[1], s.log().sum())
    order = made["Permute"].order
    for d in range(3):
        assert made["Permute"].forward(z)[0][d] == z[order[d]]
        assert made["Permute"].inverse(z)[0][order[d]] == z[d]
    assert made["Permute"].forward(z)[1] == 0
    lu = made["LU"]
    lower, upper = lu.factors()
    p = torch.eye(3, dtype=torch.float64)[lu.order]
    close(lu.forward(z)[0], p @ lower @ upper @ z)
    close(lu.inverse(z)[0], torch.linalg.inv(upper) @ torch.linalg.inv(lower) @ p.mT @ z)
    close(lu.forward(z)[1], upper.diagonal().log().sum())
    close(upper.diagonal(), (5 * torch.tanh(lu.raw_log_diagonal / 5)).exp())
    assert lower.triu(1).count_nonzero() == upper.tril(-1).count_nonzero() == 0
    assert (lower.diagonal() == 1).all()
    box = made["Support"]
    parts = [minflow.Support([a], [b]) for a, b in zip(box.lower, box.upper, strict=True)]
    each = [part(column) for part, column in zip(parts, z.split(1), strict=True)]
    close(box.forward(z)[0], torch.cat([x for x, _ in each]))
    close(box.forward(z)[1], sum(value for _, value in each))
    first, last = made["Compose"]
    close(made["Compose"].forward(z)[0], last.forward(first.forward(z)[0])[0])
    close(made["Inverse"].forward(z)[0], made["Inverse"].transform.inverse(z)[0])


def test_standardize_takes_means_and_deviations_with_divisor_n() -> None:
    data = torch.tensor([[1.0, -2.0], [4.0, 0.0], [1.0, 8.0]], dtype=torch.float64)
    layer = minflow.Standardize.of(data)
    close(layer.mean, data.sum(0) / 3)
    close(layer.std, ((data - data.sum(0) / 3).square().sum(0) / 3).sqrt())
    assert not list(layer.parameters())


def test_actnorm_starts_at_means_and_deviations_with_divisor_n() -> None:
    data = torch.tensor([[1.0, -2.0], [4.0, 0.0], [1.0, 8.0]], dtype=torch.float64)
    layer = minflow.ActNorm(2).double()
    layer.initialize(data)
    close(layer.shift, data.sum(0) / 3)
    close(layer.log_scale.exp(), ((data - data.sum(0) / 3).square().sum(0) / 3).sqrt())


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_householder_as_the_sheet_writes_it(dim: int) -> None:
    torch.manual_seed(0)
    layer = minflow.Householder(dim).double()
    torch.nn.init.normal_(layer.normals)
    q = torch.eye(dim, dtype=torch.float64)
    for v in layer.normals.detach():
        q = q @ (torch.eye(dim, dtype=torch.float64) - 2 * v.outer(v) / v.square().sum())
    assert len(layer.normals) == (dim if dim % 2 == 0 else dim - 1)
    z = torch.randn(dim, dtype=torch.float64)
    x, value = layer.forward(z)
    close(x, q @ z)
    close(layer.inverse(x)[0], q.mT @ x)
    close(value, 0)
    close(q.mT @ q, torch.eye(dim))
    close(torch.det(q), 1)


def test_every_rotation_is_a_product_of_so_many_mirrors() -> None:
    """A rotation, undone column by column with mirrors; the rest is the identity."""
    generator = torch.Generator().manual_seed(0)
    for dim in (2, 3, 4, 5):
        q = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q
        q[:, 0] *= torch.det(q).sign()
        if dim % 2:  # an odd rotation has an axis: put it last, and leave it
            axis = torch.linalg.svd(q - torch.eye(dim)).Vh[-1]
            basis = torch.linalg.qr(torch.cat([axis[:, None], torch.eye(dim)], 1)).Q.flip(1)
            q = basis.mT @ q @ basis
        mirrors = 0
        for k in range(dim - dim % 2):
            v = q[:, k] - torch.eye(dim, dtype=torch.float64)[:, k]
            if v.norm() > 1e-9:
                q = q - 2 * v.outer(v @ q) / v.square().sum()
                mirrors += 1
        close(q, torch.eye(dim))
        assert mirrors % 2 == 0
        assert mirrors <= dim - dim % 2


EPSILON = 0.001


def stretch(p: Tensor) -> Tensor:
    """s(p) of the sheet."""
    c = 1 - EPSILON
    return torch.where(p >= 0, 1 + p, EPSILON + c * torch.exp(p / c))


ACTIVATIONS = {
    # name: h, h' and the root a for given A and s, if the sheet has a formula for it
    "tanh": (torch.tanh, lambda a: 1 - a.tanh() ** 2, None),
    "leaky_relu": (
        lambda a: torch.where(a >= 0, a, a / 10),
        lambda a: torch.where(a >= 0, 1.0, 0.1).to(a),
        lambda A, s: torch.where(A >= 0, A / s, A / (0.9 + 0.1 * s)),
    ),
}


def points(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sign", [1, -1], ids=["expands", "contracts"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_planar_as_the_sheet_writes_it(activation: str, sign: int) -> None:
    h, slope, root = ACTIVATIONS[activation]
    w, b = torch.tensor([1.5, -0.4, 0.3], dtype=torch.float64), 0.2
    v = torch.tensor([0.9, 0.7, -0.5], dtype=torch.float64) * sign
    layer = minflow.Planar(3, activation).double()
    with torch.no_grad():
        layer.params.copy_(torch.cat([w, v, number(b).reshape(1)]))
    p = w @ v
    assert p.sign() == sign
    s = stretch(p)
    u = v + (s - 1 - p) * w / w.square().sum()
    close(1 + w @ u, s)
    z = points(9, 3)
    a = z @ w + b
    assert (a < 0).any() and (a > 0).any()
    x, value = layer(z)
    close(x, z + u * h(a).unsqueeze(-1))
    close(value, torch.log(1 + slope(a) * (w @ u)))
    close(slope(a), jacobian(h, a).diagonal())
    for point, said in zip(z, value, strict=True):
        close(said, log_det(lambda point: layer(point)[0], point))
    # The way back: the equation, where the sheet says its root lies, and the inverse.
    target = x @ w + b
    close(a + (w @ u) * h(a), target)
    close(layer.inverse(x)[0], x - u * h(a).unsqueeze(-1))
    ends = torch.stack([target, target / s])
    assert ((ends.amin(0) - 1e-9 <= a) & (a <= ends.amax(0) + 1e-9)).all()
    if root is not None:
        close(root(target, s), a)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_planar_map_can_be_inverted_if_the_sheet_says_so(activation: str) -> None:
    """Along w it is a ↦ a + wᵀu h(a): it rises for wᵀu > −1, and just beyond it does not."""
    h, _, _ = ACTIVATIONS[activation]
    a = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    for product, rises in ((-0.99, True), (3.0, True), (-1.01, False)):
        assert bool((a + product * h(a)).diff().gt(0).all()) == rises


def test_stretch_as_the_sheet_writes_it() -> None:
    p = torch.tensor([[-50.0], [-1.0], [-1e-3], [0.0], [0.7], [30.0]], dtype=torch.float64)
    u, s = minflow.planar.invertible(p, torch.ones_like(p))
    close(s, stretch(p).squeeze(-1))
    close(1 + u, stretch(p))
    assert (s >= EPSILON).all()
    assert minflow.planar.FLOOR == EPSILON


@pytest.mark.parametrize("p", [0.8, -1.5])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_radial_as_the_sheet_writes_it(dim: int, p: float) -> None:
    centre, alpha = points(dim), math.exp(soft(0.4))
    layer = minflow.Radial(dim).double()
    with torch.no_grad():
        layer.params.copy_(torch.cat([centre, torch.tensor([0.4, p]).double()]))
    s = stretch(number(p))
    beta = alpha * (s - 1)
    assert beta > -alpha
    for z in points(6, dim):
        r = (z - centre).norm()
        x, value = layer(z)
        close(x, z + beta * (z - centre) / (alpha + r))
        formula = (dim - 1) * torch.log(1 + beta / (alpha + r))
        formula = formula + torch.log(1 + alpha * beta / (alpha + r) ** 2)
        close(value, formula)
        close(log_det(lambda point: layer(point)[0], z), formula)
        rho = (x - centre).norm()
        close((rho - alpha * s + ((rho - alpha * s) ** 2 + 4 * alpha * rho).sqrt()) / 2, r)
        close(centre + (r + alpha) / (r + alpha * s) * (x - centre), z)
        close(layer.inverse(x)[0], z)


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (3, 1), (3, 2), (4, 4)])
def test_sylvester_as_the_sheet_writes_it(dim: int, rank: int) -> None:
    torch.manual_seed(0)
    layer = minflow.Sylvester(dim, rank).double()
    torch.nn.init.normal_(layer.params)
    q, r, r_tilde, b, s = (part.detach() for part in layer.parts())
    assert q.shape == (dim, rank)
    close(q.mT @ q, torch.eye(rank))
    assert r.tril(-1).count_nonzero() == r_tilde.tril(-1).count_nonzero() == 0
    close(1 + r_tilde.diagonal() * r.diagonal(), s)
    assert (s >= EPSILON).all()
    z = points(dim)
    a = r_tilde @ q.mT @ z + b
    x, value = layer(z)
    close(x, z + q @ r @ a.tanh())
    formula = torch.log(1 + (1 - a.tanh() ** 2) * r_tilde.diagonal() * r.diagonal()).sum()
    close(value, formula)
    close(log_det(lambda point: layer(point)[0], z), formula)
    close(a + r_tilde @ r @ a.tanh(), r_tilde @ q.mT @ x + b)
    assert (r_tilde @ r).tril(-1).count_nonzero() == 0  # so the equation is triangular
    close(layer.inverse(x)[0], x - q @ r @ a.tanh())


def test_domains_as_the_sheet_writes_them() -> None:
    line, unit, circle = (-math.inf, math.inf), (0.0, 1.0), (-math.pi, math.pi)
    said = {"line": line, "(0, 1)": unit, "circle": circle}
    table = {row[0]: row[3] for row in rows("The library's maps") if len(row) == 5}
    for name in (*SCALAR, *SPLINES, "MixtureCDF", "Monotone"):
        layer = minflow.Elementwise(2, getattr(minflow, name)())
        start, end = table[name].split(" → ")
        assert minflow.transform.interval(layer.domain) == pytest.approx(said[start]), name
        assert minflow.transform.interval(layer.codomain) == pytest.approx(said[end]), name


def test_every_map_of_the_library_is_on_the_sheet_and_checked() -> None:
    public = {
        name
        for name in minflow.__all__
        if isinstance(thing := getattr(minflow, name), type)
        and issubclass(thing, minflow.Transform | minflow.ScalarMap)
    } - {"Transform", "ScalarMap"}
    others = {"MixtureCDF", "Monotone", "Reversed"}
    assert public == {*SCALAR, *SPLINES, *others, *some_transforms()}
    activations = {f'"{name}"' for name in ACTIVATIONS}
    found = {row[0].strip("| ") for row in rows("The library's maps") if len(row) != 3}
    assert found == public | activations | {*COUPLINGS, *AUTOREGRESSIVE, *COLUMNS}
    assert minflow.planar.ACTIVATIONS.keys() == ACTIVATIONS.keys()


# Entropies


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


ENTROPIES = {
    # name: density, ends, the sheet's formula
    "normal": (lambda x: normal(x, 1, 0.7), -9, 11, 0.5 * math.log(2 * math.pi * math.e * 0.49)),
    "uniform": (lambda x: torch.full_like(x, 1 / 2.5), -1, 1.5, math.log(2.5)),
    "exponential": (lambda x: 3 * torch.exp(-3 * x), 0, 20, 1 - math.log(3)),
    "logistic": (
        lambda x: torch.sigmoid((x - 1) / 0.4) * torch.sigmoid(-(x - 1) / 0.4) / 0.4,
        -30, 32, math.log(0.4) + 2,
    ),
    "Beta": (
        lambda x: x ** (2.5 - 1) * (1 - x) ** (4 - 1) * math.exp(-log_beta(2.5, 4)), 0, 1,
        log_beta(2.5, 4) - 1.5 * digamma(number(2.5)) - 3 * digamma(number(4.0))
        + 4.5 * digamma(number(6.5)),
    ),
    "Laplace": (
        lambda x: torch.exp(-(x - 1).abs() / 0.6) / 1.2, -20, 22, 1 + math.log(1.2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTROPIES)
def test_entropy_of_a_law(name: str) -> None:
    density, low, high, formula = ENTROPIES[name]
    close(integral(density, low, high), 1.0)
    close(-integral(lambda x: xlogx(density(x)), low, high), formula)


def test_entropy_of_the_lognormal_law() -> None:
    mu, sigma = 0.3, 0.6

    def weighted(y: Tensor) -> Tensor:  # over y = log x: p(x) dx = N(y) dy
        density = normal(y, mu, sigma) / y.exp()
        return -density.log() * normal(y, mu, sigma)

    formula = mu + 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    close(integral(weighted, mu - 12 * sigma, mu + 12 * sigma), formula)


COV = torch.tensor([[1.3, 0.5], [0.5, 0.8]], dtype=torch.float64)
COV_2 = torch.tensor([[0.9, -0.2], [-0.2, 1.4]], dtype=torch.float64)
MU, MU_2 = torch.tensor([[0.3, -0.2], [0.0, 0.5]], dtype=torch.float64)


def plane() -> tuple[Tensor, float]:
    steps = torch.linspace(-12, 12, 601, dtype=torch.float64)
    return torch.cartesian_prod(steps, steps), float((steps[1] - steps[0]) ** 2)


def test_entropy_of_the_normal_law_in_many_dimensions() -> None:
    x, area = plane()
    log_p = log_normal(x, MU, COV)
    formula = math.log(2 * math.pi * math.e) + 0.5 * math.log(1.3 * 0.8 - 0.25)
    close(-(log_p.exp() * log_p).sum() * area, formula)


def test_entropy_of_the_uniform_law_on_a_set() -> None:
    """A disc of radius 2: the mean of −log p over it is the log of its area."""
    x, area = plane()
    inside = x.norm(dim=-1) <= 2
    close(inside.sum() * area, 4 * math.pi, 2e-2)
    density = 1 / (inside.sum() * area)
    close(-(density * density.log() * inside * area).sum(), math.log(4 * math.pi), 2e-2)


def test_the_entropy_table_is_checked_row_by_row() -> None:
    others = {"lognormal", "normal in $D$ dimensions", "uniform on a set"}
    assert names("Entropies") == {*ENTROPIES} | others


def test_entropy_under_a_map() -> None:
    f, slope = RISING
    z = torch.linspace(-10, 10, 400_001, dtype=torch.float64)
    x, density = f(z), normal(z) / slope(z)
    y = -xlogx(density)
    directly = (0.5 * (y[1:] + y[:-1]) * (x[1:] - x[:-1])).sum()  # over x
    shift = integral(lambda z: normal(z) * slope(z).log(), -10, 10)
    close(directly, 0.5 * math.log(2 * math.pi * math.e) + shift)


def test_entropy_under_a_linear_map_and_of_standardised_data() -> None:
    def entropy(cov: Tensor) -> Tensor:
        return math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(cov)

    a = torch.tensor([[0.5, 2.0], [-1.0, 0.3]], dtype=torch.float64)
    close(entropy(a @ COV @ a.mT), entropy(COV) + torch.linalg.slogdet(a)[1])
    deviations = COV.diagonal().sqrt()
    standardised = COV / deviations.outer(deviations)
    close(entropy(standardised), entropy(COV) - deviations.log().sum())


# Targets


def circle(t: Tensor) -> Tensor:
    return torch.stack([t.cos(), t.sin()], -1)


def round_normal(x: Tensor, centre: Tensor, sigma: float) -> Tensor:
    distance = (x.unsqueeze(-2) - centre).square().sum(-1)
    return torch.exp(-distance / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def around(
    curve: Callable[[Tensor], Tensor], low: float, high: float, sigma: float
) -> Callable[[Tensor], Tensor]:
    """The mean over t of N(x; c(t), σ²I), by the midpoint rule."""
    t = low + (high - low) * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    return lambda x: round_normal(x, curve(t), sigma).mean(-1)


def mean_of(*parts: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: sum(part(x) for part in parts) / len(parts)


def at(*means: tuple[float, float], sigma: float) -> Callable[[Tensor], Tensor]:
    centres = torch.tensor(means, dtype=torch.float64)
    return lambda x: round_normal(x, centres, sigma).mean(-1)


MIXTURE = minflow.data.GaussianMixture(
    torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64),
    [[1.0, 0.3], [0.5, 0.6]],
    [1, 3],
)


def mixture_parts(x: Tensor) -> Tensor:
    """The density of each of MIXTURE's components, times its weight."""
    first = normal(x[..., 0], 0.0, 1.0) * normal(x[..., 1], 1.0, 0.3)
    second = normal(x[..., 0], 2.0, 0.5) * normal(x[..., 1], -1.0, 0.6)
    return torch.stack([first / 4, 3 * second / 4], -1)


def bump(u: Tensor) -> Tensor:
    return torch.exp(-(u**2) / 2)


def exp_minus_energy(name: str, x: Tensor) -> Tensor:
    x1, x2 = x.unbind(-1)
    w1, w2 = torch.sin(2 * math.pi * x1 / 4), 3 * bump((x1 - 1) / 0.6)
    w3 = 3 / (1 + torch.exp(-(x1 - 1) / 0.3))
    ring = bump((x.norm(dim=-1) - 2) / 0.4)
    return {
        "U1": ring * (bump((x1 - 2) / 0.6) + bump((x1 + 2) / 0.6)),
        "U2": bump((x2 - w1) / 0.4),
        "U3": bump((x2 - w1) / 0.35) + bump((x2 - w1 + w2) / 0.35),
        "U4": bump((x2 - w1) / 0.4) + bump((x2 - w1 + w3) / 0.35),
    }[name]


LOG_Z = {  # as on the sheet
    f"U{k}": float(value) for k, value in re.findall(r"\\log Z_(\d) &= .*?(\d\.\d{6})[,.]", PAGE)
}


def energy_density(name: str) -> Callable[[Tensor], Tensor]:
    def density(x: Tensor) -> Tensor:
        envelope = 1 if name == "U1" else normal(x[..., 0], 0, 2)
        return envelope * exp_minus_energy(name, x) / math.exp(LOG_Z[name])

    return density


LOG_2PIE = math.log(2 * math.pi * math.e)
CORNERS = [(4 / 2**0.5 * math.cos(k * math.pi / 4), 4 / 2**0.5 * math.sin(k * math.pi / 4))
           for k in range(8)]  # fmt: skip
TARGETS = {
    # name: the target, its density and, if there is a formula, its entropy, as on the sheet
    "GaussianMixture": (MIXTURE, lambda x: mixture_parts(x).sum(-1), None),
    "EightGaussians": (minflow.data.EightGaussians(), at(*CORNERS, sigma=1 / 8**0.5), None),
    "FourGaussians": (
        minflow.data.FourGaussians(), at((0, -2), (0, 0), (2, 2), (-2, 2), sigma=0.5), None,
    ),
    "TwoMoons": (
        minflow.data.TwoMoons(),
        mean_of(
            around(circle, 0, math.pi, 0.05),
            around(lambda t: torch.tensor([1, 0.5]).double() - circle(t), 0, math.pi, 0.05),
        ),
        None,
    ),
    "Rings": (
        minflow.data.Rings(),
        mean_of(*(
            around(lambda t, r=r: r * circle(t), 0, 2 * math.pi, 0.08)
            for r in (3 / 4, 3 / 2, 9 / 4, 3)
        )),
        None,
    ),
    "SwissRoll": (
        minflow.data.SwissRoll(),
        around(lambda t: t.unsqueeze(-1) / 5 * circle(t), 1.5 * math.pi, 4.5 * math.pi, 0.2),
        None,
    ),
    "Checkerboard": (
        minflow.data.Checkerboard(),
        lambda x: ((x / 2).floor().sum(-1) % 2 == 0) * (x.abs() < 4).all(-1) / 32,
        math.log(32),
    ),
    "Banana": (
        minflow.data.Banana(),
        lambda x: normal(x[..., 1], 0, 2) * normal(x[..., 0] - x[..., 1] ** 2 / 4),
        LOG_2PIE + math.log(2),
    ),
    "Funnel": (
        minflow.data.Funnel(10),
        lambda x: normal(x[..., 0], 0, 3)
        * (normal(x[..., 1:] * (-x[..., :1] / 2).exp()) * (-x[..., :1] / 2).exp()).prod(-1),
        5 * LOG_2PIE + math.log(3),
    ),
    "U1": (minflow.data.U1(), energy_density("U1"), None),
    "U2": (minflow.data.U2(), energy_density("U2"), LOG_2PIE + math.log(0.4 * 2)),
    "U3": (minflow.data.U3(), energy_density("U3"), None),
    "U4": (minflow.data.U4(), energy_density("U4"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_density_of_a_target_as_the_sheet_writes_it(name: str) -> None:
    target, density, _ = TARGETS[name]
    generator = torch.Generator().manual_seed(0)
    x = target.sample((40,), generator=generator).double()
    x = torch.cat([x, x + 0.1 * torch.randn(x.shape, generator=generator)])
    close(target.log_prob(x).exp(), density(x), 1e-6)


@pytest.mark.parametrize("name", TARGETS.keys() - {"GaussianMixture"})
def test_entropy_of_a_target_as_the_sheet_writes_it(name: str) -> None:
    target, _, formula = TARGETS[name]
    (row,) = [row for row in rows("Targets") if row[0] == name]
    assert abs(target.entropy() - float(row[1])) < 6e-5
    assert (f"H(\\text{{{name}}}) &=" in PAGE) == (formula is not None)
    if formula is not None:
        close(target.entropy(), formula)


@pytest.mark.parametrize("name", ["U1", "U2", "U3", "U4"])
def test_normaliser_of_an_energy_as_the_sheet_writes_it(name: str) -> None:
    x, area = plane()
    assert abs((energy_density(name)(x).sum() * area).log()) < 6e-7
    assert abs(TARGETS[name][0].log_normalizer - LOG_Z[name]) < 6e-7
    if name != "U1":
        factor = re.search(rf"\\log Z_{name[1]} &= \\log\\left\(([\d.]+)\\,\\sqrt", PAGE)[1]
        assert abs(math.log(float(factor) * math.sqrt(2 * math.pi)) - LOG_Z[name]) < 6e-7


@pytest.mark.parametrize(
    ("name", "widths"), [("U2", [0.4]), ("U3", [0.35] * 2), ("U4", [0.4, 0.35])]
)
def test_x2_given_x1_as_the_sheet_writes_it(name: str, widths: list[float]) -> None:
    x, _ = plane()
    x1, x2 = x.unbind(-1)
    w1 = torch.sin(2 * math.pi * x1 / 4)
    shift = {"U2": 0 * x1, "U3": 3 * bump((x1 - 1) / 0.6), "U4": 3 * torch.sigmoid((x1 - 1) / 0.3)}
    centres = [w1, w1 - shift[name]]
    given = sum(
        s / sum(widths) * normal(x2 - c, 0, s)
        for s, c in zip(widths, centres[: len(widths)], strict=True)
    )
    close(TARGETS[name][0].log_prob(x).exp(), normal(x1, 0, 2) * given)


def test_entropy_of_a_mixture_as_the_sheet_writes_it() -> None:
    x, area = plane()
    parts = mixture_parts(x)
    p = parts.sum(-1)
    directly = -(xlogx(p)).sum() * area
    shares = parts / p.clamp(min=1e-300).unsqueeze(-1)
    doubt = -xlogx(shares).sum(-1)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    own = LOG_2PIE + torch.tensor([0.3, 0.5 * 0.6], dtype=torch.float64).log()
    mean_doubt = (parts / weights * doubt.unsqueeze(-1)).sum(0) * area
    close(directly, (weights * (own - weights.log() - mean_doubt)).sum())
    close(MIXTURE.entropy(), directly)


def test_the_target_table_is_checked_row_by_row() -> None:
    public = set(minflow.data.__all__) - {"split"}
    assert names("Targets") == public == set(TARGETS)


# Divergences


def test_kl_between_normal_laws() -> None:
    mu_1, sigma_1, mu_2, sigma_2 = 0.4, 0.8, -0.5, 1.7
    formula = math.log(sigma_2 / sigma_1) - 0.5
    formula += (sigma_1**2 + (mu_1 - mu_2) ** 2) / (2 * sigma_2**2)

    def weighted(x: Tensor) -> Tensor:
        p, q = normal(x, mu_1, sigma_1), normal(x, mu_2, sigma_2)
        return p * (p.log() - q.log())

    close(integral(weighted, -9, 9), formula)


def test_kl_between_normal_laws_in_many_dimensions() -> None:
    x, area = plane()
    log_p, log_q = log_normal(x, MU, COV), log_normal(x, MU_2, COV_2)
    inverse, difference = torch.linalg.inv(COV_2), MU - MU_2
    formula = 0.5 * (
        (torch.det(COV_2) / torch.det(COV)).log()
        - 2
        + torch.trace(inverse @ COV)
        + difference @ inverse @ difference
    )
    close((log_p.exp() * (log_p - log_q)).sum() * area, formula)


def test_kl_between_exponential_laws() -> None:
    def weighted(x: Tensor) -> Tensor:
        p = 3 * torch.exp(-3 * x)
        return p * (p.log() - (math.log(0.5) - 0.5 * x))

    close(integral(weighted, 0, 20), math.log(3 / 0.5) + 0.5 / 3 - 1)


def test_kl_between_uniform_laws() -> None:
    """U(0, 1) to U(−1, 3), by the definition; the other way round a log-ratio is infinite."""
    p, q = number(1.0), number(1 / 4)
    close(integral(lambda x: (p * (p / q).log()).expand_as(x), 0, 1), math.log(4 / 1))
    reverse = torch.distributions.kl_divergence(
        torch.distributions.Uniform(-1.0, 3.0), torch.distributions.Uniform(0.0, 1.0)
    )
    assert reverse == math.inf


def test_kl_to_the_best_normal() -> None:
    """The formula is the divergence to the normal of p's own moments, and none is nearer."""

    def p(x: Tensor) -> Tensor:
        return 3 * torch.exp(-3 * x)

    def kl(mu: float, sigma: float) -> Tensor:
        return integral(lambda x: p(x) * (p(x).log() - normal(x, mu, sigma).log()), 0, 8)

    best = kl(1 / 3, 1 / 3)
    formula = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * math.log(1 / 9) - (1 - math.log(3))
    close(best, formula)
    for mu, sigma in ((0.31, 1 / 3), (0.36, 1 / 3), (1 / 3, 0.31), (1 / 3, 0.36)):
        assert kl(mu, sigma) > best
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x @ torch.linalg.cholesky(COV).mT
    fit = (x.mean(0), torch.cov(x.mT, correction=0))
    for worse in ((fit[0] + 0.05, fit[1]), (fit[0], fit[1] * 50 / 49), (fit[0], fit[1] * 0.98)):
        assert log_normal(x, *worse).mean() < log_normal(x, *fit).mean()


def test_best_normal_with_independent_coordinates() -> None:
    """Of all diagonal covariances near it, each direction's formula is the best one."""

    def kl_normal(cov_1: Tensor, cov_2: Tensor) -> Tensor:
        laws = (
            torch.distributions.MultivariateNormal(MU.new_zeros(len(c)), c) for c in (cov_1, cov_2)
        )
        return torch.distributions.kl_divergence(*laws)

    root = torch.tensor([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.4, 0.9]], dtype=torch.float64)
    cov = root @ root.mT
    precision = torch.linalg.inv(cov)
    forward, reverse = cov.diagonal(), 1 / precision.diagonal()
    least_forward = 0.5 * (cov.diagonal().log().sum() - torch.logdet(cov))
    least_reverse = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    close(kl_normal(cov, forward.diag()), least_forward)
    close(kl_normal(reverse.diag(), cov), least_reverse)
    for d in range(3):
        for factor in (0.9, 1.1):
            change = torch.ones(3, dtype=torch.float64)
            change[d] = factor
            assert kl_normal(cov, (change * forward).diag()) > least_forward
            assert kl_normal((change * reverse).diag(), cov) > least_reverse
    rho = 0.9
    pair = torch.tensor([[4.0, 2 * rho], [2 * rho, 1.0]], dtype=torch.float64)
    close(kl_normal(pair, pair.diagonal().diag()), -0.5 * math.log(1 - rho**2))
    inner = 1 / torch.linalg.inv(pair).diagonal()
    close(kl_normal(inner.diag(), pair), -0.5 * math.log(1 - rho**2))


def test_the_divergence_table_is_checked_row_by_row() -> None:
    checked = {"normal", "normal in $D$ dimensions", "exponential", "uniform on $A$", "any $p$"}
    assert names("Divergences") == checked


# Determinants


def leibniz(matrix: Tensor) -> Tensor:
    """The determinant by its definition, expanded along the first row."""
    if len(matrix) == 0:
        return number(1.0)
    minors = [torch.cat([matrix[1:, :j], matrix[1:, j + 1 :]], 1) for j in range(len(matrix))]
    return sum((-1) ** j * matrix[0, j] * leibniz(minor) for j, minor in enumerate(minors))


def test_determinant_rules() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 3, 3, dtype=torch.float64, generator=generator)
    close(leibniz(a @ b), leibniz(a) * leibniz(b))
    close(leibniz(torch.linalg.inv(a)), 1 / leibniz(a))
    close(leibniz(a.mT), leibniz(a))
    close(leibniz(-2 * a), (-2) ** 3 * leibniz(a))
    close(leibniz(a[:2, :2]), a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0])
    close(leibniz(a.tril()).abs().log(), a.diagonal().abs().log().sum())
    block = torch.cat([torch.cat([a, torch.zeros_like(a)], 1), torch.cat([c, b], 1)])
    close(leibniz(block), leibniz(a) * leibniz(b))
    for orthogonal in (torch.linalg.qr(a).Q, torch.eye(3, dtype=torch.float64)[[2, 0, 1]]):
        close(leibniz(orthogonal).abs(), 1.0)
    factor = torch.linalg.cholesky(COV)
    close(leibniz(COV).log(), 2 * factor.diagonal().log().sum())
    u, w = torch.randn(2, 3, 1, dtype=torch.float64, generator=generator)
    close(leibniz(torch.eye(3) + u @ w.mT), 1 + (w.mT @ u).squeeze())
    inverse = torch.linalg.inv(a)
    close(leibniz(a + u @ w.mT), (1 + w.mT @ inverse @ u).squeeze() * leibniz(a))
    tall, wide = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator)
    close(leibniz(torch.eye(4) + tall @ wide.mT), leibniz(torch.eye(2) + wide.mT @ tall))
    close(
        (torch.eye(3) + u @ w.mT) @ (torch.eye(3) - u @ w.mT / (1 + w.mT @ u)),
        torch.eye(3),
    )
    wide = 1e-3 * torch.eye(200, dtype=torch.float64)
    assert torch.det(wide).log() == -math.inf
    close(torch.linalg.slogdet(wide)[1], 200 * math.log(1e-3))


TAU = 2 * math.pi
JACOBIANS = {
    "polar": (lambda v: v[0] * torch.stack([v[1].cos(), v[1].sin()]), lambda v: v[0]),
    "spherical": (lambda v: v[0] * direction(v[1], v[2]), lambda v: v[0] ** 2 * v[1].sin()),
    "Box–Muller": (
        lambda v: (-2 * v[0].log()).sqrt() * torch.stack([(TAU * v[1]).cos(), (TAU * v[1]).sin()]),
        lambda v: TAU / v[0],
    ),
    "sphere of radius $R$": (lambda v: 1.7 * direction(v[0], v[1]), lambda v: 1.7**2 * v[0].sin()),
}


def direction(theta: Tensor, phi: Tensor) -> Tensor:
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()])


@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobian_worth_knowing(name: str) -> None:
    f, formula = JACOBIANS[name]
    size = 3 if name == "spherical" else 2
    point = torch.tensor([0.6, 0.3, 1.9], dtype=torch.float64)[:size]
    j = jacobian(f, point)
    close(torch.det(j.mT @ j).sqrt(), formula(point))


def test_the_determinant_tables_are_checked_row_by_row() -> None:
    rules = {
        "product", "inverse", "transpose", "factor", "two by two", "triangular",
        "block triangular", "orthogonal", "Cholesky", "matrix determinant lemma",
        "the same, general", "Sylvester's identity", "Sherman–Morrison",
    }  # fmt: skip
    assert names("Determinants") == rules | {*JACOBIANS}


def test_a_density_of_another_mass_has_another_floor() -> None:
    m, entropy = 1.7, 0.5 * math.log(2 * math.pi * math.e)
    nll = integral(lambda x: -normal(x) * (m * normal(x)).log(), -12, 12)
    close(nll, entropy - math.log(m), 1e-8)  # reached where q is m times p
    nll = integral(lambda x: -normal(x) * (m * normal(x, 0.3, 1.2)).log(), -12, 12)
    assert nll > entropy - math.log(m)


def gauss_kl(mu1, cov1, mu2, cov2):
    law = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(law(mu1, cov1), law(mu2, cov2))


def two_normal_laws():
    g = torch.Generator().manual_seed(0)
    out = []
    for _ in range(2):
        a = torch.randn(3, 3, generator=g, dtype=torch.float64)
        out += [torch.randn(3, generator=g, dtype=torch.float64), a @ a.T + torch.eye(3)]
    return out


def test_total_correlation_by_entropies() -> None:
    _, cov, _, _ = two_normal_laws()
    entropies = 0.5 * (2 * math.pi * math.e * cov.diagonal()).log().sum()
    joint = 0.5 * torch.logdet(2 * math.pi * math.e * cov)
    zero = torch.zeros(3, dtype=torch.float64)
    close(gauss_kl(zero, cov, zero, cov.diagonal().diag()), entropies - joint, 1e-9)


def test_the_divergence_splits_as_the_densities_do() -> None:
    mu, cov, nu, other = two_normal_laws()
    a, b = slice(0, 1), slice(1, 3)
    whole = gauss_kl(mu, cov, nu, other)
    first = gauss_kl(mu[a], cov[a, a], nu[a], other[a, a])

    def given(m, c):  # slope, and covariance, of the rest given the first
        slope = c[b, a] / c[a, a]
        return slope, c[b, b] - slope @ c[a, b]

    (s1, c1), (s2, c2) = given(mu, cov), given(nu, other)
    # The mean of the conditional divergence over x_A: Gauss–Hermite is exact for a square.
    rest = number(0.0)
    for z, w in ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)):
        x = mu[a] + cov[a, a].sqrt().squeeze() * z
        m1 = mu[b] + (s1 @ (x - mu[a]))
        m2 = nu[b] + (s2 @ (x - nu[a]))
        rest = rest + w * gauss_kl(m1, c1, m2, c2)
    close(whole, first + rest, 1e-9)


def test_the_gradient_of_a_root() -> None:
    torch.manual_seed(0)
    layer = minflow.Elementwise(1, minflow.MixtureCDF()).double()
    torch.nn.init.normal_(layer.params)
    z = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    x, _ = layer.forward(z)
    dz, dtheta = torch.autograd.grad(x.sum(), (z, layer.params))
    at = x.detach().requires_grad_()
    g, _ = layer.inverse(at)  # g(x; θ) = z
    g_x, g_theta = torch.autograd.grad(g.sum(), (at, layer.params))
    close(dz, 1 / g_x, 1e-8)
    close(dtheta, -g_theta / g_x, 1e-8)


def test_what_few_rows_cost() -> None:
    torch.manual_seed(0)
    n, dim, runs = 200, 2, 2000
    k = dim + dim * (dim + 1) / 2
    x = torch.randn(runs, n, dim, dtype=torch.float64)
    mean = x.mean(1)
    cov = torch.einsum("rni,rnj->rij", x - mean[:, None], x - mean[:, None]) / n
    inverse = torch.linalg.inv(cov)
    kl = 0.5 * (
        torch.logdet(cov)
        - dim
        + inverse.diagonal(dim1=-2, dim2=-1).sum(-1)
        + torch.einsum("ri,rij,rj->r", mean, inverse, mean)
    )
    close(kl.mean() * n / (k / 2), 1.0, 0.06)


def test_the_best_normal_scores_half_the_log_det() -> None:
    _, cov, _, _ = two_normal_laws()
    law = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), cov)
    close(law.entropy(), 0.5 * torch.logdet(2 * math.pi * math.e * cov), 1e-10)
