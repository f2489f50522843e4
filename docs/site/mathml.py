"""Build hook: formulas become MathML, which browsers render without a script.

A block is a fence named ``math``; inline it is code that begins with ``#!math``.
"""

from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Register the formats of ``math`` with the two Markdown extensions that know them."""
    block = {"name": "math", "class": "math", "format": _block}
    inline = {"name": "math", "class": "math", "format": _inline}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [block]
    config.mdx_configs.setdefault("pymdownx.inlinehilite", {})["custom_inline"] = [inline]
    return config


def _block(source: str, language: str, css_class: str, options: Any, md: Any, **kwargs: Any) -> str:
    return f'<div class="math">{_mathml(source, "block")}</div>'


def _inline(source: str, language: str, css_class: str, md: Any) -> str:
    return _mathml(source, "inline")


def _mathml(source: str, display: str) -> str:
    return convert(source, display=display).replace(r"\_", "_")
