"""The list of packages, which setuptools cannot find by itself in this layout; everything else is in pyproject.toml.

`kernels/` and `tasks/` lie at the top and are installed inside tinymaml. The symlinks that show them there too are
for running from the checkout: they are left out here, and a checkout without them builds the same wheel.
"""

from setuptools import find_packages, setup

INSIDE = ("kernels", "tasks")

packages = find_packages(
    include=["tinymaml", "tinymaml.*"],
    exclude=[pattern for name in INSIDE for pattern in (f"tinymaml.{name}", f"tinymaml.{name}.*")],
)
packages += [f"tinymaml.{name}" for name in find_packages(include=[p for name in INSIDE for p in (name, f"{name}.*")])]

setup(packages=packages, package_dir={f"tinymaml.{name}": name for name in INSIDE})
