"""Self-contained pages and charts: colours, figures, HTML. Does not know what they show. Loads matplotlib and jinja2."""
