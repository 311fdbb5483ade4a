"""Helpers that know nothing of networks: variable trees, checks of values, files, processes.

Start with `trees`; `checks` says what an entry may hold, `files` writes so that a kill loses
nothing, `distributed` lets several processes act as one, and `programs` bounds what XLA keeps.
"""
