"""Halves of characters (lone surrogates), which JSON can spell but UTF-8 can't."""

from __future__ import annotations

import pytest

from tests.contract.site import Site, finish_analysis, problem, start_analysis

HALF = "\\ud800"


@pytest.fixture(scope="module")
def analysis_id(site: Site) -> int:
    start_analysis(site)
    return finish_analysis(site)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/plans", '{"analysis_id": %d, "criterion": "HALF", "sparsities": {}}'),
        ("/api/plans", '{"analysis_id": %d, "name": "HALF", "sparsities": {}}'),
        ("/api/plans", '{"analysis_id": %d, "sparsities": {"HALF": 0.5}}'),
        ("/api/plans", '{"analysis_id": %d, "HALF": 0.5}'),
        ("/api/plans/%d/measure", '{"split": "HALF"}'),
        ("/api/analyses", '{"model_id": 1, "dataset_id": 1, "criteria": ["HALF"]}'),
        ("/api/analyses", '{"model_id": 1, "dataset_id": 1, "units": ["HALF"]}'),
    ],
)
def test_they_are_refused_in_words(site: Site, analysis_id: int, path: str, body: str) -> None:
    if "measure" in path:
        plan = {"analysis_id": analysis_id, "sparsities": {"conv.weight": 0.5}}
        path = path % site.http.post("/api/plans", json=plan).json()["id"]
    content = body.replace("%d", str(analysis_id)).replace("HALF", HALF)
    answer = site.http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert problem(answer, 422)["errors"]
