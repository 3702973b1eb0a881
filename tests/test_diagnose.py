"""diagnose: each finding on a flow that has the fault, and none on flows that have not."""

import math
import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

import minflow as mf
from minflow.diagnose import CHECKS
from minflow.trace import traced

BOOK = Path(__file__).parent.parent / "book"
CHAPTERS = {"1": "change_of_variables", "2": "jacobian", "3": "training"}


def draws(count=3000, dim=2):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0))


def affine(dim=2):
    return mf.Elementwise(dim, mf.Affine())


def changed(**parts):
    """An affine layer in which a method is another."""
    return type("Changed", (mf.Elementwise,), parts)(2, mf.Affine())


def wrong_side(factor):
    def inverse(self, x, context=None):
        z, log_det = mf.Elementwise.inverse(self, x)
        return z, factor * log_det

    return inverse


def other_scale(self, z, context=None):
    return 2 * z, torch.full(z.shape[:-1], 2 * math.log(2))


def draws_noise(self, x, context=None):
    z, log_det = mf.Elementwise.inverse(self, x)
    return z + 0.1 * torch.randn_like(z), log_det


def misses(self, x, context=None):
    z, log_det = mf.Elementwise.inverse(self, x)
    return z + 0.05 * z.sin().detach(), log_det


def breaks(self, x, context=None):
    z, log_det = mf.Elementwise.inverse(self, x)
    return z.where(x < 2, math.nan), log_det


class Forgets(mf.StandardNormal):
    """A base without its normalising constant."""

    def log_prob(self, z):
        return -0.5 * z.square().sum(-1)


class Wide(mf.StandardNormal):
    """A base whose samples do not follow its density."""

    def rsample(self, shape):
        return 1.5 * super().rsample(shape)


class Whitens(mf.Transform):
    """A layer that standardises each batch by itself, in train mode: no density at all."""

    def __init__(self):
        super().__init__(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, z, context=None):
        return z + self.mean, z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        mean = x.detach().mean(0) if self.training else self.mean
        return x - mean, x.new_zeros(x.shape[:-1])


class Counts(Whitens):
    """A layer that keeps a running mean of what it scores."""

    def inverse(self, x, context=None):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean, x.new_zeros(x.shape[:-1])


class Dead(mf.Transform):
    """A shift by a network whose hidden units never wake up."""

    def __init__(self):
        super().__init__(2)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
        nn.init.constant_(self.net[0].bias, -100.0)

    def forward(self, z, context=None):
        shift = self.net(z[..., :1])
        return z + torch.cat([0 * shift, shift], -1), z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        shift = self.net(x[..., :1])
        return x - torch.cat([0 * shift, shift], -1), x.new_zeros(x.shape[:-1])


def saturated(layer, name):
    with torch.no_grad():
        getattr(layer, name).fill_(0.0)[-1] = -50.0
    return layer


def on_the_unit_square():
    return mf.Compose(affine(), mf.Elementwise(2, mf.Sigmoid()))


MOONS = mf.data.TwoMoons(0.05).sample((3000,), generator=torch.Generator().manual_seed(0))
# name -> (the check that must speak, words that it must say, transform, data, base)
FAULTS = {
    "outside": ("finite", "lie outside the flow's support", on_the_unit_square(), draws(), None),
    "broken layer": ("finite", "transforms.1 .*first that breaks",
                     mf.Compose(affine(), changed(inverse=breaks)), draws(), None),
    "noise": ("repeatable", "second time", changed(inverse=draws_noise), draws(), None),
    "whitens": ("repeatable", r"train\(\) and eval\(\)", Whitens(), draws() + 1, None),
    "counts": ("repeatable", "changes the flow itself: transform.mean", Counts(), draws() + 1, None),
    "units": ("units", "column 1 .*mean 500 ", affine(), draws() + torch.tensor([0.0, 500.0]), None),
    "tiny": ("units", "column 0 .*standard deviation 0.0", affine(), 0.01 * draws(), None),
    "counts of things": ("spread of the data", "occur twice", affine(), draws().round(), None),
    "constant": ("spread of the data", "column 1 never changes", affine(),
                 draws() * torch.tensor([1.0, 0.0]), None),
    "misses": ("round trip", r"transforms\.0 .*off by itself",
               mf.Compose(changed(inverse=misses), affine()), draws(), None),
    "flipped": ("log-det", "the sign is flipped", changed(inverse=wrong_side(-1)), 3 * draws(), None),
    "missing": ("log-det", r"Changed\)\.inverse says", changed(inverse=wrong_side(0)), 3 * draws(),
                None),
    "two maps": ("one density", "forward and inverse are two maps", changed(forward=other_scale),
                 draws(), None),
    "constant lost": ("mass", r"mass 6\.\d* instead of 1.* 1\.8", affine(), draws(), Forgets(2)),
    "sampler": ("Stein's identity", r"−D = -2", affine(), draws(), Wide(2)),
    "too wide": ("base points", "coordinate 0 .*too wide", affine(), 0.3 * draws(), None),
    "dependent": ("base points", "still depend on each other", affine(),
                  draws()[:, :1] * torch.tensor([[1.0, 1.0]]), None),
    "dead": ("parameters", r"transform\.net\.0\.weight does not change", Dead(), draws(), None),
    "saturated": ("parameters", "1 of the 2 log-scales of transform .*TriangularAffine",
                  saturated(mf.TriangularAffine(2), "raw_log_diagonal"), draws(), None),
    "saturated radius": ("parameters", "1 of the 1 log-scales of transform .*Radial",
                         mf.Radial(2), draws(), None),
    "saturated map": ("parameters", "2 of the 2 log-scales of transform .*Elementwise",
                      saturated(affine(), "params"), draws(), None),
}  # fmt: skip


def trained(*layers, data, **options):
    flow = mf.Flow(mf.Compose(*layers))
    mf.fit(flow, data, steps=300, lr=0.05, **options)
    return flow


RAW = draws() * torch.tensor([400.0, 0.01]) + torch.tensor([1000.0, 0.1])
POSITIVE = torch.sigmoid(draws())
SKEWED = draws() @ torch.tensor([[1.0, 0.9], [0.0, 0.4]])
BETA = torch.distributions.Beta(torch.full((2,), 2.0), torch.full((2,), 3.0))
# name -> what makes a healthy flow, and data that it describes
HEALTHY = {
    "identity": (lambda: mf.Flow(affine()), draws()),
    "float64": (lambda: mf.Flow(affine()).double(), draws().double()),
    "raw data": (lambda: trained(affine(), mf.Standardize.of(RAW), data=RAW), RAW),
    "unit square": (lambda: trained(*on_the_unit_square(), data=POSITIVE), POSITIVE),
    "a kink": (lambda: mf.Flow(mf.Elementwise(2, mf.LeakyReLU())), draws()),
    "Cholesky": (lambda: trained(mf.TriangularAffine(2), data=SKEWED), SKEWED),
    "another base": (lambda: mf.Flow(affine(), BETA), BETA.sample((3000,))),
    "one dimension": (lambda: mf.Flow(affine(1)), draws(dim=1)),
    "a mixture": (
        lambda: trained(
            mf.Elementwise(2, mf.MixtureCDF(4)), mf.Householder(2), affine(), data=SKEWED
        ),
        SKEWED,
    ),
    "planar": (lambda: trained(*mf.planar_flow(2, layers=2).transform, data=SKEWED), SKEWED),
    "leaky planar": (lambda: trained(affine(), mf.Planar(2, "leaky_relu"), data=SKEWED), SKEWED),
    "radial": (lambda: trained(*mf.radial_flow(2, layers=2).transform, data=draws()), draws()),
    "sylvester": (lambda: trained(*mf.sylvester_flow(2, layers=1).transform, data=SKEWED), SKEWED),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_said(name):
    check, words, transform, data, base = FAULTS[name]
    if name == "saturated radius":
        with torch.no_grad():
            transform.params[2].fill_(50.0)
    if name in ("flipped", "missing"):
        with torch.no_grad():
            transform.params[1].fill_(1.0)
    flow = mf.Flow(transform, base)
    found = {finding.check: finding.words for finding in mf.diagnose(flow, data).wrong}
    assert check in found, found
    assert re.search(words, found[check]), found[check]


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_where_nothing_is_wrong(name):
    make, data = HEALTHY[name]
    torch.manual_seed(0)
    findings = mf.diagnose(make(), data)
    assert findings.ok, findings.wrong
    assert [finding.check for finding in findings] == list(CHECKS)


def test_every_check_is_made_to_speak():
    assert {check for check, *_ in FAULTS.values()} == set(CHECKS)


def test_a_conditional_flow_is_looked_at_with_its_context():
    from contract import Conditional

    torch.manual_seed(1)
    context = torch.randn(2000, 2)
    data = context + 0.5 * draws(2000)
    flow = mf.Flow(Conditional(2, mf.Affine()))
    mf.fit(flow, data, context=context, steps=400, lr=0.05)
    assert mf.diagnose(flow, data, context).ok
    shuffled = context[torch.randperm(2000)]
    assert [f.check for f in mf.diagnose(flow, data, shuffled).wrong] == ["base points"]


def test_dependence_that_each_coordinate_hides_is_seen():
    flow = trained(mf.Elementwise(2, mf.MixtureCDF(8)), data=MOONS)
    (wrong,) = mf.diagnose(flow, MOONS).wrong
    assert "still depend on each other" in wrong.words


def test_nothing_is_changed():
    flow, data = mf.Flow(affine()), draws()
    flow.log_prob(data).sum().backward()
    gradient = flow.transform.params.grad.clone()
    state = {k: v.clone() for k, v in flow.state_dict().items()}
    before = torch.get_rng_state()
    mf.diagnose(flow, data)
    assert torch.equal(before, torch.get_rng_state()) and flow.training
    assert torch.equal(gradient, flow.transform.params.grad)
    assert all(torch.equal(v, state[k]) for k, v in flow.state_dict().items())
    assert not {"forward", "inverse"} & flow.transform.__dict__.keys()


def test_an_error_inside_the_flow_is_a_finding():
    def raises(self, z, context=None):
        raise RuntimeError("no way forward")

    found = mf.diagnose(mf.Flow(changed(forward=raises)), draws()).wrong
    assert "round trip" in {f.check for f in found}
    assert all("raised RuntimeError: no way forward" in f.words for f in found)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((affine(), draws()), TypeError, "diagnose takes a Flow; got Elementwise"),
        ((mf.Flow(affine()), draws(1)), ValueError, "at least two rows; got 1"),
        ((mf.Flow(affine()), draws(dim=3)), ValueError, r"\(3000, 3\)"),
        ((mf.Flow(affine()), draws(), draws()), ValueError, "context"),
        ((mf.Flow(affine()), draws() * math.nan), ValueError, "3000 of 3000 rows"),
    ],
)
def test_wrong_input_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        mf.diagnose(*arguments)


def test_the_book_has_what_the_findings_point_to():
    said = set()
    for _, _, transform, data, base in FAULTS.values():
        for finding in mf.diagnose(mf.Flow(transform, base), data).wrong:
            said |= set(re.findall(r"Chapter (\d), “(.+?)”", finding.words))
    assert len(said) >= 4
    for chapter, heading in said:
        cells = nbformat.read(BOOK / f"{CHAPTERS[chapter]}.ipynb", as_version=4).cells
        assert any(f"## {heading}" in c.source.splitlines() for c in cells), heading


# What an attempt to break it has found


def columns_alone(self, x, context=None):
    """Written for a batch: the single row of a careless check would not do."""
    z = torch.stack([x[:, 0] / 2, x[:, 1]], -1)
    return z, torch.full((len(x),), -math.log(2))


def columns_back(self, z, context=None):
    x = torch.stack([2 * z[:, 0], z[:, 1]], -1)
    return x, torch.full((len(z),), math.log(2))


class Masked(mf.Transform):
    """x₂ is shifted by a masked layer that starts at zero, as autoregressive flows have."""

    def __init__(self):
        super().__init__(2)
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("mask", torch.tensor([[0.0, 0.0], [1.0, 0.0]]))

    def shift(self, first):
        return (self.weight * self.mask) @ torch.cat([first, first], -1).unsqueeze(-1)

    def forward(self, z, context=None):
        return z + self.shift(z[..., :1])[..., 0], z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        return x - self.shift(x[..., :1])[..., 0], x.new_zeros(x.shape[:-1])


WALLS = {
    "uniform": torch.distributions.Uniform(torch.zeros(2), torch.ones(2)),
    "exponential": torch.distributions.Exponential(torch.ones(2)),
    "beta": torch.distributions.Beta(torch.full((32,), 2.0), torch.full((32,), 5.0)),
    "wide": torch.distributions.Normal(torch.zeros(784), torch.ones(784)),
}


@pytest.mark.parametrize("name", WALLS)
def test_a_base_with_walls_or_many_dimensions_is_no_fault(name):
    base = WALLS[name]
    flow = mf.Flow(affine(base.batch_shape[0]), base)
    findings = mf.diagnose(flow, flow.sample(2000))
    assert findings.ok, findings.wrong


def test_layers_written_in_other_ways_are_no_fault():
    for layer in [changed(inverse=columns_alone, forward=columns_back), Masked()]:
        if isinstance(layer, mf.Elementwise):
            layer.params.requires_grad_(False)
        flow = mf.Flow(layer)
        findings = mf.diagnose(flow, flow.sample(2000))
        assert findings.ok, findings.wrong


def test_whatever_a_flow_raises_is_a_finding():
    for error in (IndexError, AttributeError, AssertionError):

        def raises(self, z, context=None, error=error):
            raise error("no way forward")

        found = mf.diagnose(mf.Flow(changed(forward=raises)), draws()).wrong
        assert any(f"raised {error.__name__}: no way forward" in f.words for f in found)


def test_a_log_det_that_is_wrong_in_one_corner_is_seen():
    def corner(self, x, context=None):
        z, log_det = mf.Elementwise.inverse(self, x)
        return z, log_det + 1.0 * (x[..., 0] > 1.5)

    found = {f.check: f.words for f in mf.diagnose(mf.Flow(changed(inverse=corner)), draws())}
    assert "inverse says" in found["log-det"]


def test_a_forward_that_is_wrong_far_out_is_seen():
    def far_out(self, z, context=None):
        x, log_det = mf.Elementwise.forward(self, z)
        return x, log_det + 1.0 * (z.norm(dim=-1) > 2.5)

    found = {f.check: f.words for f in mf.diagnose(mf.Flow(changed(forward=far_out)), draws())}
    assert re.search("[34] % of the samples", found["one density"])


def test_a_fault_in_a_layer_that_holds_another_is_named():
    class Holds(mf.Transform):
        def __init__(self):
            super().__init__(2)
            self.inner = affine()

        def forward(self, z, context=None):
            return self.inner(z)

        def inverse(self, x, context=None):
            z, log_det = self.inner.inverse(x)
            return z, log_det + 1

    flow = mf.Flow(mf.Compose(Holds(), affine()))
    (found,) = (f.words for f in mf.diagnose(flow, draws()) if f.check == "log-det")
    assert found.startswith("transform.transforms.0 (Holds).inverse says log|det| = 1 where")


def test_a_layer_that_calls_itself_is_watched_once_and_its_own_methods_stay():
    class Both(mf.Elementwise):
        def inverse(self, x, context=None):
            self.forward(x)
            return super().inverse(x)

    layer = Both(2, mf.Affine())
    own = layer.__dict__["forward"] = lambda z, context=None: mf.Elementwise.forward(layer, z)
    with traced(mf.Flow(layer)) as calls:
        mf.Flow(layer).log_prob(draws())
    assert [call.direction for call in calls] == ["inverse"]
    assert layer.__dict__["forward"] is own and "inverse" not in layer.__dict__


def test_buffers_come_back_even_if_scoring_fails():
    class Fails(Counts):
        def inverse(self, x, context=None):
            z, log_det = super().inverse(x)
            if self.training:
                raise RuntimeError("not while training")
            return z, log_det

    flow = mf.Flow(Fails())
    found = {f.check: f.words for f in mf.diagnose(flow, draws() + 1).wrong}
    assert "not while training" in found["repeatable"]
    assert torch.equal(flow.transform.mean, torch.zeros(2))


def test_half_precision_is_refused_and_no_news_is_said():
    with pytest.raises(TypeError, match="float32 or float64; got torch.bfloat16"):
        mf.diagnose(mf.Flow(affine()).bfloat16(), draws().bfloat16())
    assert repr(mf.diagnose(mf.Flow(affine()), draws()).wrong) == "nothing found"
