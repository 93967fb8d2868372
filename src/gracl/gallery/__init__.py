"""Galleries: images that are searched, their names, and who is forgotten for good.

`gallery.py` is what people use, and `results.py` what it answers; `entries.py` says what is held of an
image, `store.py` what any place that holds it can do: a file (`sqlite.py`) or a server (`postgres.py`).
"""
