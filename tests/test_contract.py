"""Every transform keeps the contract; every check of the contract can fail."""

import inspect
import math

import pytest
import torch
from contract import CONTRACT, Conditional, StartsFromData
from torch import nn

import minflow as mf
from minflow.autoregressive import InPlace as QuickWalk
from minflow.testing import CHECKS, check_transform


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("name", CONTRACT)
def test_transform_keeps_the_contract(name, dim):
    promise = dict(vars(CONTRACT[name]))
    smallest = promise.pop("smallest")
    if dim < smallest:
        with pytest.raises(ValueError, match=f"dim must be .*at least {smallest}.*got {dim}"):
            promise["make"](dim)
        return
    findings = check_transform(dims=(dim,), **promise)
    assert findings.ok, f"\n{findings.wrong}"
    assert [finding.check for finding in findings] == list(CHECKS)


def test_every_public_transform_and_scalar_map_is_in_the_contract():
    def parts(transform):
        for module in transform.modules():
            yield type(module)
            yield type(getattr(module, "scalar_map", None))

    covered = {part for promise in CONTRACT.values() for part in parts(promise.make(2))}
    public = [vars(mf)[name] for name in mf.__all__]
    wanted = {
        thing
        for thing in public
        if inspect.isclass(thing) and issubclass(thing, mf.Transform | mf.ScalarMap)
    } - {mf.Transform, mf.ScalarMap}
    assert len(wanted) >= 9
    assert wanted - covered == set()


# --- Broken twins: each breaks one promise, and the check of that promise says so. ---


class FlippedSign(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z, -log_det


class HalfTheDimensions(StartsFromData):
    def forward(self, z, context=None):
        x, _ = super().forward(z, context)
        return x, self.log_scale[: (self.dim + 1) // 2].sum().expand(x.shape[:-1])


class OffByALittle(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z + 1e-3, log_det


class TwoPercentTooMuch(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z, log_det + 0.02


class SummedOverTheBatch(StartsFromData):
    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return x, log_det.sum()


class FlattensItsBatch(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z.reshape(-1, self.dim), log_det.reshape(-1)


class AlwaysDouble(StartsFromData):
    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return x.double(), log_det.double()


class InPlace(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return x.copy_(z), log_det


class Overflows(mf.Transform):
    """x = sinh(z): right near 0, infinite in float32 from 90 on."""

    def forward(self, z, context=None):
        return z.sinh(), z.cosh().log().sum(-1)

    def inverse(self, x, context=None):
        return x.asinh(), -(x.square() + 1).log().sum(-1) / 2


class DeadScale(StartsFromData):
    def forward(self, z, context=None):
        with torch.no_grad():
            scale = self.log_scale.exp()
        return z * scale + self.shift, self.log_scale.detach().sum().expand(z.shape[:-1])

    def inverse(self, x, context=None):
        scale = self.log_scale.detach()
        return (x - self.shift) * (-scale).exp(), -scale.sum().expand(x.shape[:-1])


class WrongGradient(StartsFromData):
    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return x + self.shift - self.shift.detach(), log_det


class DetachedLogDet(StartsFromData):
    """x = sinh(z): right values, but layers before it never learn from its log-det."""

    def forward(self, z, context=None):
        return z.sinh(), z.detach().cosh().log().sum(-1)

    def inverse(self, x, context=None):
        return x.asinh(), -(x.square() + 1).log().sum(-1) / 2


class Dropout(StartsFromData):
    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return nn.functional.dropout(x, 0.5, self.training), log_det


class CountsItsCalls(StartsFromData):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z, context=None):
        self.calls += 1
        return super().forward(z, context)


class CutOff(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z.clamp(-20, 20), log_det


class LosesDigits(StartsFromData):
    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return z, (log_det + 1e6) - 1e6


class PlainTensor(StartsFromData):
    def __init__(self, dim):
        super().__init__(dim)
        self.offset = torch.ones(())


class HalfTheContext(Conditional):
    def params(self, context):
        return super().params(context * torch.tensor([1.0, 0.0]).to(context))


class Falls(StartsFromData):
    """A map that falls in each coordinate; as good as one that rises."""

    def forward(self, z, context=None):
        return super().forward(-z, context)

    def inverse(self, x, context=None):
        z, log_det = super().inverse(x, context)
        return -z, log_det


class CentresTheBatch(StartsFromData):
    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return (x - x.mean(0) if x.dim() > 1 and len(x) else x), log_det


class IgnoresContext(Conditional):
    def params(self, context):
        return super().params(torch.zeros_like(context))


class ContextNotBroadcast(Conditional):
    def broadcast(self, value, context):
        return value, self.params(context.expand(*value.shape[:-1], 2))


class ClaimsToMix(StartsFromData):
    """Diagonal, but handed in as mixing."""


class FlagNotABuffer(StartsFromData):
    """Karpathy's ActNorm: the flag is a plain attribute, so a loaded copy starts from data again."""

    started = False

    def initialize(self, x, context=None):
        super().initialize(x, context)
        self.started = True

    def forward(self, z, context=None):
        if not self.started and z.dim() > 1 and len(z) > 1:
            self.initialize(z)
        return super().forward(z, context)


class TwoPasses(Conditional):
    def forward(self, z, context=None):
        self.params(context)
        return super().forward(z, context)


class BreaksTheGraph(StartsFromData):
    def forward(self, z, context=None):
        if float(z.sum()) == math.inf:
            raise ValueError("z is infinite")
        return super().forward(z, context)


class LeavesItsCodomain(StartsFromData):
    codomain = torch.distributions.constraints.independent(
        torch.distributions.constraints.unit_interval, 1
    )


class SumsOneCoordinate(mf.Coupling):
    """Right in two dimensions, where one coordinate moves."""

    def forward(self, z, context=None):
        kept, moved, params = self._steer(z, context)
        moved, log_slope = self.scalar_map.forward(moved, params)
        return self._join(kept, moved), log_slope[..., 0]


class SeesWhatItMoves(mf.Coupling):
    """Its network sees the moved half: the way back then sees another."""

    def _steer(self, value, context):
        kept, moved, _ = super()._steer(value, context)
        d = kept.shape[-1]
        return kept, moved, super()._steer(self._join(moved[..., :d], moved), context)[2]


class KeepsTheWrongHalf(mf.Coupling):
    """Moves one half and puts it in the place of the other."""

    def _join(self, kept, moved):
        return torch.cat([moved, kept], -1)


class BroadcastsNothing(mf.Coupling):
    def _steer(self, value, context):
        return super()._steer(value, context.expand(*value.shape[:-1], 2))


class FlagOfPython(mf.ActNorm):
    """As ActNorm, but whether it has started is no part of the state."""

    def __init__(self, dim):
        super().__init__(dim)
        del self.initialized
        self.initialized = torch.zeros(1, dtype=torch.bool).numpy()

    def initialize(self, x, context=None):
        if not self.initialized:
            self.shift.data.copy_(x.mean(0))
            self.log_scale.data.copy_(x.std(0).log())
            self.initialized.fill(True)


class StartInAList(mf.ActNorm):
    """Its start is a list of numbers, which no state holds."""

    start = (0.0, 0.0, 0.0)

    def initialize(self, x, context=None):
        self.start = x.mean(0).tolist()

    def forward(self, z, context=None):
        x, log_det = super().forward(z, context)
        return x + z.new_tensor(self.start[: self.dim]), log_det

    def inverse(self, x, context=None):
        return super().inverse(x - x.new_tensor(self.start[: self.dim]), context)


class OrderIsPlain(mf.Permute):
    def __init__(self, dim):
        super().__init__(dim)
        del self.order
        self.order = torch.randperm(dim)


class OrderIsNotSaved(mf.Permute):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("order", torch.randperm(dim), persistent=False)


class OrderTwice(mf.Permute):
    """Goes back by the way it came: right where an order undoes itself, as in two dimensions."""

    def inverse(self, x, context=None):
        return self.forward(x)


class Masked(mf.Autoregressive):
    """A small one with a residual layer, in another order; mild, so that a grid finds its mass."""

    def __init__(self, dim):
        order = [*range(1, dim), 0]
        super().__init__(dim, mf.Affine(bound=1.0), 0, (12, 12), order, residual=True)


class SeesItself(Masked):
    """>= where > is meant: what is made for a coordinate sees that coordinate too."""

    def __init__(self, dim):
        super().__init__(dim)
        position = torch.tensor([self.order.index(d) for d in range(dim)]).repeat(2)
        units = torch.tensor([p for p, n in enumerate(self.net.sizes[-2]) for _ in range(n)])
        self.net.layers[-1].mask = position.unsqueeze(-1) + 1 >= units
        first = torch.tensor([self.order.index(d) for d in range(dim)])
        self.net.layers[0].mask = units.unsqueeze(-1) >= first


class UnitsUnsorted(Masked):
    """The masks of units whose degrees stand in any order: right, but the walk takes them sorted."""

    def __init__(self, dim):
        super().__init__(dim)
        turned = torch.arange(12).flip(0)
        first, second, last = self.net.layers
        first.mask, last.mask = first.mask[turned], last.mask[:, turned]
        second.mask = second.mask[turned][:, turned]


class ForgetsItsOrder(Masked):
    """From base to data coordinate by coordinate as they stand, whatever the order."""

    def forward(self, z, context=None):
        order, self.order = self.order, tuple(range(self.dim))
        try:
            return super().forward(z, context)
        finally:
            self.order = order


class ForgetsASkip(QuickWalk):
    def __init__(self, *args):
        super().__init__(*args)
        self.skips = [False] * len(self.skips)


class ForgetsASkipInPlace(Masked):
    """Right with gradients, wrong without: so its gradients are not those of its values."""

    def _one_by_one(self, walk, z, context):
        quick = walk is QuickWalk
        return super()._one_by_one(ForgetsASkip if quick else walk, z, context)


class MasksArePlain(Masked):
    def __init__(self, dim):
        super().__init__(dim)
        for layer in self.net.layers if self.net is not None else ():
            mask = layer.mask
            del layer.mask
            layer.mask = mask


class WholePasses(Masked):
    """Right, but a pass of the whole network for each coordinate."""

    def forward(self, z, context=None):
        x = torch.zeros_like(z)
        for _ in range(self.dim):
            params = (self.params + self.net(x)).movedim(-2, 0)
            x, log_slope = self.scalar_map.forward(z, params)
        return x, log_slope.sum(-1)


class SharesItsRoom(Masked):
    """What is known of one point is known of the next: its sums run over the batch."""

    def inverse(self, x, context=None):
        seen = x.mean(0).expand_as(x) if x.dim() > 1 and len(x) else x
        params = (self.params + self.net(seen)).movedim(-2, 0)
        z, log_slope = self.scalar_map.inverse(x, params)
        return z, log_slope.sum(-1)


class LosesTheGraph(Masked):
    """Takes the way without gradients where they are asked for."""

    def _watched(self, z, context):
        return False


class BlindToItsContext(mf.Autoregressive):
    def __init__(self, dim):
        super().__init__(dim, mf.Affine(bound=1.0), 2, (12, 12))

    def _one_batch(self, value, context):
        value, context = super()._one_batch(value, context)
        return value, torch.zeros_like(context)


def affine(dim):
    return Conditional(dim, mf.Affine())


def coupling(broken, scalar_map=None, context_dim=0):
    return lambda dim: broken(dim, scalar_map or mf.Affine(), context_dim, (8,))


BROKEN = {
    "dim, domain and codomain are as declared": [dict(make=LeavesItsCodomain)],
    "the same input, the same output": [dict(make=Dropout), dict(make=CountsItsCalls)],
    "round trip": [
        dict(make=OffByALittle),
        dict(make=FlippedSign),
        dict(make=CutOff),
        dict(make=coupling(SeesWhatItMoves)),
        dict(make=coupling(KeepsTheWrongHalf)),
        dict(make=OrderTwice),
        dict(make=SeesItself),
        dict(make=UnitsUnsorted),
        dict(make=ForgetsItsOrder),
    ],
    "log-det equals the Jacobian's": [
        dict(make=FlippedSign),
        dict(make=HalfTheDimensions),
        dict(make=SummedOverTheBatch),
        dict(make=coupling(SumsOneCoordinate)),
        dict(make=coupling(SumsOneCoordinate, mf.Spline(4))),
        dict(make=coupling(SeesWhatItMoves)),
        dict(make=SeesItself),
    ],
    "densities keep their mass": [dict(make=FlippedSign), dict(make=TwoPercentTooMuch)],
    "any batch shape": [
        dict(make=FlattensItsBatch),
        dict(make=SummedOverTheBatch),
        dict(make=lambda dim: ContextNotBroadcast(dim, mf.Affine())),
        dict(make=coupling(BroadcastsNothing, context_dim=2)),
    ],
    "float32 and float64": [dict(make=AlwaysDouble), dict(make=LosesDigits)],
    "inputs are left as they were": [dict(make=InPlace)],
    "finite far out": [dict(make=Overflows)],
    "gradients alive and right": [
        dict(make=DeadScale),
        dict(make=WrongGradient),
        dict(make=DetachedLogDet),
        dict(make=ForgetsASkipInPlace),
        dict(make=LosesTheGraph),
    ],
    "rows do not see each other": [dict(make=CentresTheBatch), dict(make=SharesItsRoom)],
    "the context matters": [
        dict(make=lambda dim: IgnoresContext(dim, mf.Affine())),
        dict(make=lambda dim: HalfTheContext(dim, mf.Affine())),
        dict(make=BlindToItsContext),
    ],
    "mixes coordinates as declared": [
        dict(make=ClaimsToMix, mixes=True),
        dict(make=mf.TriangularAffine, mixes=False),
    ],
    "the state holds everything": [
        dict(make=FlagNotABuffer),
        dict(make=PlainTensor),
        dict(make=FlagOfPython),
        dict(make=StartInAList),
        dict(make=OrderIsPlain),
        dict(make=OrderIsNotSaved),
        dict(make=MasksArePlain),
    ],
    "network passes as promised": [
        dict(make=lambda dim: TwoPasses(dim, mf.Affine()), network_passes=(1, 1)),
        dict(make=affine, network_passes=(1, 2)),
        dict(make=WholePasses, network_passes=(0, 1)),
    ],
    "one graph for the closed form": [dict(make=BreaksTheGraph)],
}


def test_every_check_has_a_broken_twin():
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(
    ("check", "twin"), [(check, twin) for check, twins in BROKEN.items() for twin in twins]
)
def test_broken_twin_fails_its_check(check, twin):
    findings = check_transform(dims=(2, 3), **twin)
    assert check in [finding.check for finding in findings.wrong], f"\n{findings}"


def test_the_words_name_a_flipped_sign():
    words = {finding.check: finding.words for finding in check_transform(FlippedSign).wrong}
    assert "the sign is flipped" in words["log-det equals the Jacobian's"]


def test_what_is_right_in_two_dimensions_alone_is_found_in_three():
    for make in (coupling(SumsOneCoordinate), OrderTwice):
        assert check_transform(make, dims=(2,)).ok
        assert not check_transform(make, dims=(3,)).ok


def test_an_exception_is_a_finding():
    class Unfinished(mf.Transform):
        pass

    findings = check_transform(Unfinished)
    assert not findings.ok
    assert "Unfinished has no forward" in findings.wrong[0].words


def test_findings_print_in_a_terminal_and_in_a_notebook():
    findings = check_transform(FlippedSign, dims=(1,))
    assert "WRONG  log-det equals the Jacobian's: at D = 1" in repr(findings)
    assert "✗ wrong" in findings._repr_html_()


def test_honest_base_classes_of_the_twins_pass():
    for make in (StartsFromData, affine, Falls, Masked):
        assert check_transform(make).ok


def test_frozen_parameters_need_no_gradient():
    class Frozen(StartsFromData):
        def __init__(self, dim):
            super().__init__(dim)
            self.shift = nn.Parameter(torch.zeros(dim), requires_grad=False)

    assert check_transform(Frozen).ok
