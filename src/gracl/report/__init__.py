"""One HTML file that shows a run to people: `gracl report`."""
