"""The formula sheet, checked: each formula against quadrature or automatic differentiation.

The rows of its tables are read from the page, so a row that no test knows is noticed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.special import digamma

import minflow
from minflow.elementwise import soft_bound

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


def test_mean_nll_is_entropy_plus_kl() -> None:
    def p(x: Tensor) -> Tensor:
        return 0.3 * normal(x, -2, 0.5) + 0.7 * normal(x, 1, 1)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.2, 1.6)

    nll = integral(lambda x: -p(x) * q(x).log(), -12, 12)
    entropy = -integral(lambda x: xlogx(p(x)), -12, 12)
    kl = integral(lambda x: p(x) * (p(x).log() - q(x).log()), -12, 12)
    close(nll, entropy + kl)
    assert kl > 0


def test_paired_estimate_and_its_standard_error() -> None:
    """Over many repetitions, the estimate's spread is the standard error that each states."""
    torch.manual_seed(0)
    x = torch.randn(2000, 500, dtype=torch.float64)
    gap = normal(x).log() - normal(x, 0.5, 1.5).log()
    true = math.log(1.5) + (1 + 0.25) / (2 * 2.25) - 0.5
    assert abs(gap.mean() - true) < 4 * gap.std() / 1000
    stated = gap.std(-1).mean() / math.sqrt(500)
    close(gap.mean(-1).std(), stated, 0.1)


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


def test_soft_bound_as_the_sheet_writes_it() -> None:
    bounds = minflow.Affine().bound, minflow.LeakyReLU().bound, minflow.TriangularAffine.BOUND
    assert bounds == (5, 5, 5)
    close(soft_bound(number(3.0), 5), 5 * math.tanh(3 / 5))
    assert soft_bound(number(1e6), 5) == 5


def some_transforms() -> dict[str, minflow.Transform]:
    torch.manual_seed(0)
    made = {
        "Elementwise": minflow.Elementwise(3, minflow.Affine()),
        "TriangularAffine": minflow.TriangularAffine(3),
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
    first, last = made["Compose"]
    close(made["Compose"].forward(z)[0], last.forward(first.forward(z)[0])[0])
    close(made["Inverse"].forward(z)[0], made["Inverse"].transform.inverse(z)[0])


def test_domains_as_the_sheet_writes_them() -> None:
    line, unit = (-math.inf, math.inf), (0.0, 1.0)
    said = {"line": line, "(0, 1)": unit}
    table = {row[0]: row[3] for row in rows("The library's maps") if len(row) == 5}
    for name in (*SCALAR, "MixtureCDF"):
        layer = minflow.Elementwise(2, getattr(minflow, name)())
        start, end = table[name].split(" → ")
        assert minflow.transform.interval(layer.domain) == said[start], name
        assert minflow.transform.interval(layer.codomain) == said[end], name


def test_every_map_of_the_library_is_on_the_sheet_and_checked() -> None:
    public = {
        name
        for name in minflow.__all__
        if isinstance(thing := getattr(minflow, name), type)
        and issubclass(thing, minflow.Transform | minflow.ScalarMap)
    } - {"Transform", "ScalarMap"}
    assert names("The library's maps") == public == {*SCALAR, "MixtureCDF", *some_transforms()}


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
        "block triangular", "orthogonal", "Cholesky",
    }  # fmt: skip
    assert names("Determinants") == rules | {*JACOBIANS}
