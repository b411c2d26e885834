"""``report.html``: tables, diagrams and pictures of finished runs in one file."""

from r3cnn.reporting.html.page import HtmlSettings, write_html
from r3cnn.reporting.html.pictures import PictureSettings

__all__ = ["HtmlSettings", "PictureSettings", "write_html"]
