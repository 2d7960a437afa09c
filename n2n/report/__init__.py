"""The report room: from the files of a run folder to a page, plots and a table."""

from n2n.report.tables import figures_table
from n2n.report.write import write_report

__all__ = ["figures_table", "write_report"]
