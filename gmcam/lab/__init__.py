"""The laboratory of the book: scenes, embedded networks, exercises, and figures that only chapters draw.

It imports the library, never the other way round.
"""

import lazy_loader

# The names are in __init__.pyi; each is imported at its first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
