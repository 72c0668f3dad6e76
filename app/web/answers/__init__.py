"""The shapes of the answers, for /openapi.json.

The views build these as plain dictionaries: an analysis with ten thousand points is answered in
milliseconds, which a second validation of our own figures would cost again.
"""

from app.web.answers.analyses import Analysis, AnalysisList
from app.web.answers.common import Problem
from app.web.answers.comparison import Comparison, CriterionList
from app.web.answers.datasets import Dataset, DatasetList
from app.web.answers.experiments import Experiment, ExperimentList
from app.web.answers.figures import PointDetail
from app.web.answers.jobs import Health, Job, JobList
from app.web.answers.models import Model, ModelList
from app.web.answers.plans import Plan, PlanList
from app.web.answers.responses import answers

__all__ = [
    "Analysis",
    "AnalysisList",
    "Comparison",
    "CriterionList",
    "Dataset",
    "DatasetList",
    "Experiment",
    "ExperimentList",
    "Health",
    "Job",
    "JobList",
    "Model",
    "ModelList",
    "Plan",
    "PlanList",
    "PointDetail",
    "Problem",
    "answers",
]
