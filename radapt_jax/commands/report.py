"""`radapt report`: one page about finished runs."""

from __future__ import annotations

import argparse

from radapt_jax.report.page import write_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("workdirs", nargs="+", metavar="RUN", help="finished runs, compared")
    parser.add_argument("--out", default="report.html", help="the page (%(default)s)")
    parser.add_argument(
        "--no-images",
        action="store_true",
        help="without confusions and mistakes, for which the runs are evaluated again",
    )
    parser.add_argument("--data_dir", help="where the images are, if they have moved")
    parser.add_argument("--cache", default="~/.cache/radapt_jax", help="of decoded images")


def report(arguments: argparse.Namespace) -> None:
    """Write the page, and say where it is.

    Raises:
      FileNotFoundError, ValueError, OSError: see `write_page`.
    """
    path = write_page(
        arguments.workdirs,
        arguments.out,
        cache_dir=arguments.cache,
        data_dir=arguments.data_dir,
        images=not arguments.no_images,
    )
    count = len(arguments.workdirs)
    runs = "1 run" if count == 1 else f"{count} runs"
    print(f"{path}: {runs}; pictures in {path.stem}_pictures/")
