"""The laboratory of the book: scenes, embedded networks, exercises, and figures that only chapters draw.

It builds on the library, which knows nothing of it.
"""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
