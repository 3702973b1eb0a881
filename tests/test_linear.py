"""Linear maps: rotations really rotate, and standardising keeps count of its log-det."""

import math

import numpy as np
import pytest
import torch

import minflow as mf


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_householder_is_a_rotation_and_starts_as_none(dim):
    layer = mf.Householder(dim).double()
    identity = torch.eye(dim, dtype=torch.float64)
    assert torch.allclose(layer(identity)[0], identity)
    torch.manual_seed(dim)
    torch.nn.init.normal_(layer.normals)
    columns, log_det = (value.detach() for value in layer(identity))
    assert torch.allclose(columns @ columns.mT, identity)
    assert torch.linalg.det(columns) == pytest.approx(1.0)
    assert (log_det == 0).all()
    assert dim == 1 or (columns - identity).abs().max() > 0.1


def test_householder_turns_the_plane_by_twice_the_angle_between_its_normals():
    layer, angle = mf.Householder(2).double(), 0.3
    with torch.no_grad():
        turned = [[math.cos(angle), math.sin(angle)], [1.0, 0.0]]
        layer.normals.copy_(5 * torch.tensor(turned))  # their lengths do not matter
    x, _ = layer(torch.tensor([1.0, 0.0]).double())
    assert x.tolist() == pytest.approx([math.cos(2 * angle), math.sin(2 * angle)])


def test_householder_learns_any_rotation():
    torch.manual_seed(0)
    wanted, _ = torch.linalg.qr(torch.randn(3, 3))
    wanted = wanted * torch.linalg.det(wanted)  # in three dimensions −Q turns a mirror round
    layer = mf.Householder(3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(300):
        z = torch.randn(64, 3)
        loss = (layer(z)[0] - z @ wanted.mT).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4


class Frame:
    """As much of a pandas data frame as numpy asks for."""

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.rows, dtype)


@pytest.mark.parametrize("make", [torch.as_tensor, np.asarray, lambda rows: rows, Frame])
def test_standardize_takes_tensors_arrays_and_lists(make):
    rows = [[1.0, 10.0], [3.0, 30.0], [2.0, 50.0]]
    layer = mf.Standardize.of(make(rows))
    z, log_det = layer.inverse(torch.tensor(rows))
    assert z.dtype == torch.float32
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(z.std(0, correction=0), torch.ones(2))
    stds = np.std(rows, axis=0)
    assert log_det.tolist() == pytest.approx([-np.log(stds).sum()] * 3)


def test_standardize_in_float64_and_on_whole_numbers():
    assert mf.Standardize.of(torch.eye(2, dtype=torch.float64)).mean.dtype == torch.float64
    assert mf.Standardize.of(torch.eye(2, dtype=torch.int64)).mean.dtype == torch.float32


def test_a_flow_with_standardize_scores_in_the_units_of_the_data():
    law = torch.distributions.MultivariateNormal(
        torch.tensor([250.0, -3e4]), torch.diag(torch.tensor([40.0, 1e3]) ** 2)
    )
    data = law.sample((4000,))
    flow = mf.Flow(mf.Compose(mf.TriangularAffine(2), mf.Standardize.of(data)))
    mf.fit(flow, data, steps=200, lr=0.02)
    gap = mf.paired_gap(law, flow, law.sample((4000,)))
    assert abs(gap.nats) < 0.01
    assert flow.sample(4000).std(0).tolist() == pytest.approx([40.0, 1e3], rel=0.05)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(3), r"\(N, D\); got \(3,\)"),
        (torch.zeros(0, 2), r"\(N, D\); got \(0, 2\)"),
        (torch.tensor([[1.0], [math.nan]]), "1 of 2 rows"),
        (torch.tensor([[1.0, 2.0], [3.0, 2.0]]), r"columns \[1\] of data never change"),
        (torch.ones(1, 2), r"columns \[0, 1\] of data never change in 1 rows"),
        (torch.tensor([[1.0], [1.0 + 1e-9]], dtype=torch.float64).float(), r"columns \[0\]"),
        (np.array([[0.0], [1e-60]]), "too little for torch.float32"),
    ],
)
def test_data_that_cannot_be_standardised_are_named(data, words):
    with pytest.raises(ValueError, match=words):
        mf.Standardize.of(data)
