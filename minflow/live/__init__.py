"""Live figures: small pages of HTML and JavaScript that compute in the browser.

A live figure needs no kernel and no network. Put it last in a cell, and the saved
output works in the book, in Jupyter, VS Code and Colab. The same output holds a still
picture and words, for places that take scripts or frames away.

A figure is a function, a page and a still picture of one name in this folder. The page
marks where the shared style and script go; the script brings the theme, the frame's
height, and sliders for every hand.
"""

from minflow.live._autoregressive import autoregressive
from minflow.live._change_of_variables import change_of_variables
from minflow.live._coupling import coupling
from minflow.live._figure import LiveFigure
from minflow.live._kl import kl
from minflow.live._planar import planar
from minflow.live._spline import spline

__all__ = [
    "LiveFigure",
    "autoregressive",
    "change_of_variables",
    "coupling",
    "kl",
    "planar",
    "spline",
]
