"""The study of every method on real images, with seeds: run.py is its command."""
