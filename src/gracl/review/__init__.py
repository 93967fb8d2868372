"""Reviewing a run: a person goes through its clusters, and each decision is kept.

partition.py   which cluster each image is in, as it stands after all decisions
standing.py    what the features say of these clusters: doubts, neighbours
questions.py   which pair of images an answer helps most about
ledger.py      the decisions, on disk
review.py      all of these together: what a page or a script uses
exchange.py    tables of who is who, out and in
"""
