"""Docstrings are written for Sphinx: its roles become code, which they are in Markdown."""

import re

ROLE = re.compile(r":(?:class|meth|func|data|attr):<code>~?(?:[\w.]*\.)?(\w+)</code>")


def on_page_content(html: str, **_: object) -> str:
    """
    :param html: a page
    :return: the page, with the last name of each reference as code
    """
    return ROLE.sub(r"<code>\1</code>", html)
