"""Studies: the lab of the textbook experiments, drawn from gipi's own parts."""

from __future__ import annotations

from gipi.study.lab_page import Experiment, Picture, write_lab
from gipi.study.lab_run import EXPERIMENTS, run_lab

__all__ = ["EXPERIMENTS", "Experiment", "Picture", "run_lab", "write_lab"]
