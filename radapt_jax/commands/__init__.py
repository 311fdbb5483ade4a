"""The commands with absl flags: their flags, and what is done with the values.

`train` is behind train.py and `radapt train`, `evaluate` behind eval.py and `radapt eval`. A
module defines its flags when it is imported, so a process imports one of them.
"""
