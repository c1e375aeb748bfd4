"""Warnings that name the line of the user."""

import sys


def levels_to_caller():
    """``stacklevel`` at which a warning names the line that called the package."""
    frame, level = sys._getframe(1), 0
    inside = ("skhdkde.", "sklearn.")
    while frame and frame.f_globals.get("__name__", "").startswith(inside):
        frame, level = frame.f_back, level + 1
    return level + 1
