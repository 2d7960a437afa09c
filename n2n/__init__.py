"""N2N: finds small networks that keep the accuracy of a trained one.

`n2n.search(network, example_inputs, data, out=...)` does the whole job; `n2n.search_space(name, data, evaluate=...,
out=...)` searches a published space without a teacher. `n2n.search` is that function; the rooms are
imported by their full names, as in `from n2n.search.store import read_records`.
"""

from n2n.calibration import Calibration, calibrate
from n2n.comparison import compare_policies
from n2n.inspection import Inspection, inspect
from n2n.job import SearchResult
from n2n.main_job import search as search
from n2n.policies import load_policy
from n2n.search.artefacts import load_student, save_student
from n2n.search.export import export_network, export_student
from n2n.search.finish import distill_student
from n2n.space_job import SpaceResult
from n2n.space_main import search_space

__all__ = [
    "Calibration",
    "Inspection",
    "SearchResult",
    "SpaceResult",
    "calibrate",
    "compare_policies",
    "distill_student",
    "export_network",
    "export_student",
    "inspect",
    "load_policy",
    "load_student",
    "save_student",
    "search",
    "search_space",
]
