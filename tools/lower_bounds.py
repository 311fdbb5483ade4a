"""Print pip constraints that pin every dependency to the oldest version pyproject.toml allows."""

import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
dependencies = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
for dependency in dependencies:
    name, version = re.fullmatch(r"([\w-]+)>=([\w.]+)", dependency).groups()
    print(f"{name}=={version}{'.*' if version.count('.') < 2 else ''}")
