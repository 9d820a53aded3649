"""The documentation as a site: the pages of this folder's git, and references written from the code.

`make docs` has `python -m deploy.site` gather them in build/docs as plain Markdown, and mkdocs-material makes HTML of
that in build/site. Neither needs the internet.
"""
