"""The pages in a browser: reviewing a run, searching a gallery. They listen on this machine alone."""
