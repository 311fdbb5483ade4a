"""Serves a family over HTTP: one backbone, many domains, one process (`radapt serve`).

Needs the extra `serve`. Requests of all domains share batches (`batcher`), which an
`engine` of few compiled programs answers; `app` has the addresses, and `limits` what is refused.
"""
