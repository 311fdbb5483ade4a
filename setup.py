"""What pyproject.toml cannot say: a wheel has the recipes of configs/ as radapt_jax.recipes."""

from setuptools import find_packages, setup

RECIPES = "radapt_jax.recipes"

setup(
    packages=[
        *find_packages(include=["radapt_jax*"]),
        *(RECIPES, *(f"{RECIPES}.{name}" for name in find_packages("configs"))),
    ],
    package_dir={RECIPES: "configs"},
)
