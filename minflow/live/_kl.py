"""The two directions of the KL divergence."""

from __future__ import annotations

import math
from collections.abc import Callable

from minflow.live._figure import LiveFigure, packaged, svg_path


def kl() -> LiveFigure:
    """Show a target p of two bumps, a normal model q, and both KL divergences between them.

    p = 0.7 N(-2, 0.6²) + 0.3 N(2, 0.6²), and q = N(m, s²). The reader drags m and s and
    reads, in nats,

        forward KL(p‖q) = E_p[log p(x) - log q(x)],
        reverse KL(q‖p) = E_q[log q(x) - log p(x)],

    and where on the axis each comes from. The forward KL has one minimum, at the mean and
    the standard deviation of p: q covers both bumps. The reverse KL has two, one close to
    each bump. Where q is the bump of weight w, p >= w q everywhere, so that the minimum
    there is at most log(1/w).

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 10.1.2.

    >>> kl().start["weight"]
    0.7
    """
    left, right, std, weight = -2.0, 2.0, 0.6, 0.7
    mean = weight * left + (1 - weight) * right
    sd = math.sqrt(std**2 + weight * (1 - weight) * (right - left) ** 2)

    def normal(x: float, m: float, s: float) -> float:
        return math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))

    def target(x: float) -> float:
        return weight * normal(x, left, std) + (1 - weight) * normal(x, right, std)

    def path(density: Callable[[float], float]) -> str:
        points = ((x, density(x)) for x in xs if density(x) > 0.001)
        return svg_path((330 + 48 * x, 260 - 270 * d) for x, d in points)

    xs = [0.05 * k for k in range(-120, 121)]
    # E_p[log q] is in closed form, since q matches the moments of p; E_p[log p] is a sum.
    negative_entropy = sum(0.05 * target(x) * math.log(target(x)) for x in xs)
    forward = negative_entropy + math.log(sd * math.sqrt(2 * math.pi * math.e))
    ticks = "".join(
        f'<text x="{330 + 48 * x}" y="278">{x}</text>' for x in range(-6, 7, 2)
    )
    words = (
        f"The target p has two bumps, of weight {weight:g} at {left:g} and {1 - weight:g} at {right:g}. "
        f"Among normal models, the forward KL is least at p's own mean {mean:.2f} and standard "
        f"deviation {sd:.2f}, where it is {forward:.3f} nats: the model covers both bumps and the gap. "
        f"The reverse KL has two minima, one on each bump, of about {-math.log(weight):.2f} and "
        f"{-math.log(1 - weight):.2f} nats: the model keeps to one bump and leaves the other out."
    )
    return LiveFigure(
        name="kl",
        title="The two directions of the KL divergence",
        words=words.replace("-", "\u2212"),
        still=packaged("kl.svg").format(
            ticks=ticks.replace(">-", ">\u2212"),
            target=path(target),
            forward=path(lambda x: normal(x, mean, sd)),
            left=path(lambda x: normal(x, left, std)),
            right=path(lambda x: normal(x, right, std)),
        ),
        alt="A target of two bumps, a wide normal that covers both, and a narrow one on each.",
        start={
            "m": 0.5,
            "s": 1.0,
            "left": left,
            "right": right,
            "std": std,
            "weight": weight,
        },
        height=770,
    )
