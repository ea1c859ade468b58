"""The doctor: training problems are suspected, confirmed, repaired, and the repair proven."""

from gipi.doctor.diagnose import Diagnosis, diagnose
from gipi.doctor.experiment import Experiment
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rules import RULES
from gipi.doctor.treat import Treatment
from gipi.doctor.watch import Watch, watch

__all__ = [
    "RULES", "Diagnosis", "Experiment", "Finding", "Repair", "Treatment", "Watch", "diagnose",
    "watch",
]  # fmt: skip
