"""Helpers that know nothing of networks: variable trees, checks of values, files, processes.

Start with `trees`. `checks` says which values an entry may have, `files` writes files so that
nothing is lost if the process is killed, `distributed` lets several processes act as one, and
`programs` limits how many compiled programs a process holds.
"""
