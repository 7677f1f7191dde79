"""`report.html`: one self-contained page, rendered from evidence alone."""

from superweight.report.page.render import render_html

__all__ = ["render_html"]
