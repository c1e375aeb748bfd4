"""How many random examples a fuzzer tries.

By default a few, always the same, in seconds. All of them as a long run, with other
examples each time::

    SKHDKDE_EXAMPLES=2000 python -m pytest -m hypothesis
"""

import os

from hypothesis import settings

# As many as the user asks for.
EXAMPLES = os.environ.get("SKHDKDE_EXAMPLES")


def examples(few, **options):
    """Return hypothesis' settings for a few examples, or as many as are asked for."""
    if EXAMPLES is None:
        return settings(max_examples=few, derandomize=True, deadline=None, **options)
    return settings(max_examples=int(EXAMPLES), deadline=None, **options)
