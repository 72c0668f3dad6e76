"""Jinja2 pages: everything escaped, data for scripts in a JSON block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.web.contexts import PageContext
from app.web.static import Assets

_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def json_script(value: Any) -> Markup:
    """JSON that can stand inside a script element: it can't end it, nor open a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.translate(_ESCAPES))


class Pages:
    """Renders the templates. `state` is a dataclass of app.web.contexts or a plain mapping."""

    def __init__(self, folder: Path, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["json_script"] = json_script
        self._environment.globals["static_url"] = assets.url

    def text(self, template: str, page: PageContext, state: Any) -> str:
        data = state if isinstance(state, dict) else vars(state)
        return self._environment.get_template(template).render(page=page, state=data)

    def render(
        self, template: str, page: PageContext, state: Any, status: int = 200
    ) -> HTMLResponse:
        return HTMLResponse(self.text(template, page, state), status_code=status)

    def fragment(self, source: str, page: PageContext, **values: Any) -> HTMLResponse:
        """A page whose template is given as text."""
        template = self._environment.from_string(source)
        return HTMLResponse(template.render(page=page, **values))
