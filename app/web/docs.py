"""/docs: the API for people, drawn from the OpenAPI description without any script."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.web.contexts import PageContext
from app.web.services import Given

router = APIRouter(include_in_schema=False)

TEMPLATE = """{% extends "base.html" %}
{% block title %}API{% endblock %}
{% block content %}
<main class="page" id="main" tabindex="-1">
  <div class="title"><h1>{{ api.title }} API</h1><p>{{ api.description }}</p></div>
  <p>Described for programs at <a href="/openapi.json">/openapi.json</a>. Every call but
  <code>/healthz</code> needs the token:</p>
  <pre tabindex="0">curl -H "Authorization: Bearer $TOKEN" {{ base }}api/models</pre>
  {% for tag, calls in groups %}
  <section class="sect" aria-labelledby="tag-{{ loop.index }}">
    <h2 id="tag-{{ loop.index }}">{{ tag }}</h2>
    {% for call in calls %}
    <details>
      <summary><code>{{ call.method }} {{ call.path }}</code> {{ call.summary }}</summary>
      {% if call.text %}<p>{{ call.text }}</p>{% endif %}
      {% if call.inputs %}
      <table class="grid">
        <thead><tr><th scope="col">field</th><th scope="col">in</th><th scope="col">type</th>
        <th scope="col">what it is</th></tr></thead>
        <tbody>
        {% for name, place, type, text in call.inputs %}
        <tr><th scope="row"><code>{{ name }}</code></th><td>{{ place }}</td>
        <td><code>{{ type }}</code></td><td>{{ text }}</td></tr>
        {% endfor %}
        </tbody>
      </table>
      {% endif %}
      <p>Answers:
      {% for status, text in call.answers %}
      <code>{{ status }}</code> {{ text }}{{ "," if not loop.last }}
      {% endfor %}</p>
    </details>
    {% endfor %}
  </section>
  {% endfor %}
</main>
{% endblock %}
"""


@router.get("/docs")
def docs(request: Request, given: Given) -> Response:
    """A plain page: a browsable console would need scripts from elsewhere."""
    api = request.app.openapi()
    page = PageContext(title="API", crumbs=(("Models", "/"), ("API", None)))
    return given.pages.fragment(
        TEMPLATE, page, api=api["info"], base=str(request.base_url), groups=_groups(api)
    )


def _groups(api: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in api["paths"].items():
        for method, call in methods.items():
            described = {
                "method": method.upper(),
                "path": path,
                "summary": call.get("summary", ""),
                "text": call.get("description", ""),
                "inputs": _parameters(call) + _body(api, call),
                "answers": [
                    (status, _answer(api, answer)) for status, answer in call["responses"].items()
                ],
            }
            groups.setdefault((call.get("tags") or ["other"])[0], []).append(described)
    return list(groups.items())


def _parameters(call: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (each["name"], each["in"], _type(each["schema"]), each.get("description", ""))
        for each in call.get("parameters", ())
    ]


def _body(api: dict[str, Any], call: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    content = call.get("requestBody", {}).get("content", {})
    rows = []
    for media in content.values():
        schema = _resolved(api, media["schema"])
        for name, field in schema.get("properties", {}).items():
            text = field.get("description", "")
            if name in schema.get("required", ()):
                text = f"required. {text}"
            elif field.get("default") is not None:
                text = f"{text} Default: {field['default']}."
            rows.append((name, "body", _type(field), text.strip()))
    return rows


def _answer(api: dict[str, Any], answer: dict[str, Any]) -> str:
    for media, content in answer.get("content", {}).items():
        schema = content.get("schema", {})
        if "$ref" in schema:
            return schema["$ref"].rpartition("/")[2]
        return media
    return answer.get("description", "")


def _resolved(api: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the one that it, or its non-null alternative, refers to."""
    for option in (schema, *schema.get("anyOf", ())):
        if "$ref" in option:
            return api["components"]["schemas"][option["$ref"].rpartition("/")[2]]
    return schema


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return schema.get("type", "any")
