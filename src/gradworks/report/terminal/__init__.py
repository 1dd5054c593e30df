"""The terminal's half of the report: progress of a run, tables and a paper's page, with rich."""

from __future__ import annotations

from gradworks.report.terminal.optimizers import optimizer_table
from gradworks.report.terminal.pages import catalogue_table, claim_table, paper_page
from gradworks.report.terminal.progress import ProgressView
from gradworks.report.terminal.tables import comparison_table, data_table, plan_table

__all__ = [
    "ProgressView",
    "catalogue_table",
    "claim_table",
    "comparison_table",
    "data_table",
    "optimizer_table",
    "paper_page",
    "plan_table",
]
