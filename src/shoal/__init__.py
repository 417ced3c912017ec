"""Federated learning: one plan that runs compiled on one machine, or across machines that belong to others.

The public names are listed in `__init__.pyi`. They are loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
