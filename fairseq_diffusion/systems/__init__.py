"""One page per paper.  Each page names its parts, states its equations, and enters its presets."""

from importlib import import_module
from pkgutil import iter_modules

for page in iter_modules(__path__):
    import_module(f"{__name__}.{page.name}")
