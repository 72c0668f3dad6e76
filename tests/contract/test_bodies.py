"""Bodies that are no request at all, and what the description says of answers that fail."""

from __future__ import annotations

import pytest

from tests.contract.site import Site, problem


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"", b"[]", b"null", b"\xff\xfe", b'{"a": 1'],
    ids=lambda body: f"{body[:6]!r} of {len(body)}",
)  # fmt: skip
def test_a_body_that_is_no_request_gets_a_sentence(site: Site, body: bytes):
    for noun in ("analyses", "plans", "experiments"):
        answer = site.http.post(
            f"/api/{noun}", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        said = problem(answer, answer.status_code)["detail"]
        assert said.endswith((".", ")."))
        assert "JSON" in said or "object" in said


def test_checkpoints_say_in_the_description_what_may_go_wrong(site: Site):
    paths = site.http.get("/openapi.json").json()["paths"]
    for noun in ("plans", "experiments"):
        described = paths[f"/api/{noun}/{{id}}/checkpoint"]["get"]["responses"]
        assert {"200", "404", "409", "422", "503", "504", "507"} <= set(described)
